"""What a checkpoint folder holds, checked before a tensor is read."""
