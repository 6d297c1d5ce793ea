"""How expert calls reach experts: one seam, and what implements it."""
