"""The small trained checkpoint that ships with eightwinds, and the scripts that made it.

Nothing in here is imported at run time: the server reads this folder as a checkpoint, like any other.
"""
