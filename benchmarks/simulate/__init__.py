"""How fast a step would be on other machines: a simulator, its calibration here, and its check against runs here."""
