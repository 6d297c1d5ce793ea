"""The threads that carry policies out: replicas of experts, and their number by load."""
