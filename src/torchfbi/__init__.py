"""Forward-backward interpretability for convolutional networks."""
