"""A dataset to a run: which weights a run starts from, what it learns and when it ends."""
