"""redditgen finetunes a GPT-2 on Reddit titles and generates new ones with it."""

__version__ = "0.1.0"
