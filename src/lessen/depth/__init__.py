"""The depth axis: exits, when a row may leave at one, and how to train them."""
