"""The query in BigQuery Standard SQL, its columns and tables, and its translation to DuckDB's SQL."""
