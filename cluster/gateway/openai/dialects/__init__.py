"""Other forms in which clients ask for a chat: each is a shim, a body made into that of a chat completion, and the
completion made into an answer.
"""
