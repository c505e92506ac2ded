"""redditgen: Reddit titles in, a GPT-2 that writes new ones out."""

__version__ = "0.1.0"
