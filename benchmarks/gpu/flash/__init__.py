"""flash-attn 2 for the card at hand, from its source."""
