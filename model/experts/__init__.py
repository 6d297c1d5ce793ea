"""An expert's weights, in each form that they may have."""
