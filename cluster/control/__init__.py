"""The threads that carry policies out: the replicas of experts, and their number by usage."""
