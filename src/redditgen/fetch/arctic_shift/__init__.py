"""Posts from Arctic Shift's web API, kept as NDJSON."""
