"""A device's memory, its link to the host, and its failures."""
