"""Imports monthly zstd dumps of Reddit posts to Parquet files."""
