"""The mathematics of Mixtral: configuration, checkpoint, trunk, experts, sampling, tokenizer, and the oracle."""
