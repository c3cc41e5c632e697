"""Training: objectives over the exits, and the glue to transformers' Trainer."""
