"""This project beside what a user would run instead, on the same cores and requests, in turns."""
