"""A layer's rows to the experts' replicas and back: choice, deadlines, splits, usage."""
