"""Titles: records, keywords, dataset splits, detection of copies, and the word and subreddit lists of filters."""
