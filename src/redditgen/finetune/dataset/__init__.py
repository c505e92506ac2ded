"""Reads files of records or of plain text as tokens, and chooses which of them are held out."""
