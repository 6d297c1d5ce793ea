"""From logits to the next token, row by row the same in any batch."""
