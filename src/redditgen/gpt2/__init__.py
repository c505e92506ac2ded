"""GPT-2 models on disk: model directories, run info, hyperparameters, tokenizer, metrics."""
