"""Downloads posts from Arctic Shift's web API to NDJSON files."""
