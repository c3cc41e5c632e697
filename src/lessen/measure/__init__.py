"""What a model costs, measured on this machine, beside the same weights in other runtimes."""
