"""The mathematics of Mixtral: trunk, attention, experts, sampling, constraints, checkpoint, text, and the oracle."""
