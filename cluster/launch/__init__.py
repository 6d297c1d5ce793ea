"""From configuration to a ready server, and back to nothing."""
