"""Width: heads, neurons, ranks and whole layers, what each is worth, and their physical removal."""
