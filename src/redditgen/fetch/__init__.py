"""Posts to titles: one query, run by DuckDB on local files or by BigQuery."""
