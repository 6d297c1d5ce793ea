"""Conversations to token ids by the template that a checkpoint was tuned on, and calls of tools out of its text."""
