"""Kills, freezes and scalings under load, with every token compared: `python -m tests.chaos`."""
