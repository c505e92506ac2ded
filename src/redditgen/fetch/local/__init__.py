"""Files of posts, read by DuckDB."""
