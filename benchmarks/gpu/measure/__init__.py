"""What the steps measure with."""
