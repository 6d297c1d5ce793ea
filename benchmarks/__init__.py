"""Measurements. Each prints a table and keeps its last result under benchmarks/results/."""
