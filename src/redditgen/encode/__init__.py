"""Titles to records with keywords, and records back to titles (decode)."""
