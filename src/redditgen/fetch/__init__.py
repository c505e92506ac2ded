"""Turns Reddit posts into a file of titles, by one SQL query that DuckDB or BigQuery runs."""
