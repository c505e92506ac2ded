"""Reading and writing files: atomic writes, sidecars, resumable outputs, locks, tables, untrusted files."""
