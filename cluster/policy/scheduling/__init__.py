"""What one step runs: which sequences, how much of each, in which pages."""
