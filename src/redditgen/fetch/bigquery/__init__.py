"""Posts from BigQuery: login, cost, query, result and errors."""
