"""Requests become steps of the head; results become events."""
