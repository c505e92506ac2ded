"""Measures how good a run is, on held-out titles and on generated ones, and writes a page that shows it."""
