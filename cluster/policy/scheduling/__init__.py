"""The choice of one step: which sequences run, how much of each, in which pages."""
