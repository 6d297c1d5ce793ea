"""What an operator writes down: configuration, addresses, token files."""
