"""Encodes titles as records with keywords, and decodes records to titles."""
