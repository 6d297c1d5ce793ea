"""Which expert processes there should be, where, and when the head may use them."""
