"""Few bits: binarized weights and how they learn, packed signs, and products with weights of 1 or 8 bits."""
