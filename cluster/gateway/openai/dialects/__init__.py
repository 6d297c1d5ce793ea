"""The forms in which a chat is asked for and answered: OpenAI's own, and others, which are shims over it."""
