"""Programs that use eightwinds from outside."""
