"""A GPT-2 on disk: model directories, run info, hyperparameters, tokenizer, metrics."""
