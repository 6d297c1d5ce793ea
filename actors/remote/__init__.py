"""Ray, applied: the only home of Ray in the data plane."""
