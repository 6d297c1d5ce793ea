"""The instruments of the steps."""
