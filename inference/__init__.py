"""What is done with a network that is not trained: evaluation, saved models."""
