"""An expert's weights, one file per form."""
