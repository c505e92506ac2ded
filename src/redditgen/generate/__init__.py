"""A run to new titles: prompts, rounds of sampling, filters and output."""
