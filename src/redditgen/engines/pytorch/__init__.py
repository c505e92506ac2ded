"""Training with PyTorch, in this process or by ray's workers."""
