"""The data plane: the head, the experts, the router between them, and how they reach each other."""
