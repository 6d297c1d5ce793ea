"""Several hosts on one machine, and what happens when they are lost: `python -m tests.multihost`."""
