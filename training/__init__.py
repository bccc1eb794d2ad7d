"""Training: the run, its plan, its steps, and what moves the weights."""
