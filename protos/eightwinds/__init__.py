"""The `eightwinds` protocol buffer packages."""
