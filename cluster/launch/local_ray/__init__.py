"""A Ray of our own on this machine: started, found again, taken down."""
