"""Real client programs, each in an environment of its own, against a server: `python -m tests.clients`."""
