"""What a title is: its record, keywords, splits, copies of known titles, and lists of what to leave out."""
