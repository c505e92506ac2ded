"""The torch engine's training: with PyTorch, in this process or in ray's workers."""
