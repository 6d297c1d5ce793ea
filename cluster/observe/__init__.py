"""The running server in plain numbers and lines."""
