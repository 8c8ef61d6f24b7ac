"""What is learnt: losses and the use of a model, apart from the model itself."""
