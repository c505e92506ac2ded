"""Queries posts in BigQuery: login, cost, query, result and errors."""
