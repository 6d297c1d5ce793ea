"""Outputs kept to a JSON schema or a regular expression."""
