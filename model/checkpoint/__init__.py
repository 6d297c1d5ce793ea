"""A checkpoint folder: its headers, checked before a tensor is read, its tensors and its settings."""
