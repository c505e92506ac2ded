"""Files that appear complete or not at all: atomic writes, sidecars, resumable outputs, locks, tables."""
