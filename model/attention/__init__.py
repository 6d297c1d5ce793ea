"""Attention over the paged KV cache, by torch or by flash-attention's kernels."""
