"""What is said about a model to people: the model card."""
