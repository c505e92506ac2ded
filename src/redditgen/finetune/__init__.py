"""Finetunes a run on a dataset: which weights it starts from, what it is trained on, and when it ends."""
