"""Local files of posts, queried with DuckDB."""
