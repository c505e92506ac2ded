"""Monthly zstd dumps of Reddit posts, imported to Parquet."""
