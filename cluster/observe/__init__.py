"""What can be seen of a running server, in plain numbers and lines."""
