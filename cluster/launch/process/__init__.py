"""The process that serves: how it is told to end, what it says while it starts, memory that it gives back."""
