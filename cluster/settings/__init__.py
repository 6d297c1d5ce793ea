"""Everything that an operator writes: configuration, addresses, token files."""
