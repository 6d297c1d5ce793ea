"""Matrices of a model in the forms in which a process can hold them."""
