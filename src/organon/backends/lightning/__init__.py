"""Training on this machine, in a worker process of its own."""
