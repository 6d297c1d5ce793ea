"""Head and experts on Ray. Only this room of the control plane imports Ray."""
