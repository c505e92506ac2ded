"""Converts the parameters of a query to BigQuery's types, and back to values."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from google.cloud.bigquery import ArrayQueryParameter, QueryJob, QueryJobConfig, ScalarQueryParameter
    from sqlglot import exp


def query_parameters(
    tree: "exp.Query", values: Mapping[str, Any]
) -> "list[ScalarQueryParameter | ArrayQueryParameter]":
    """Return the `values` whose @names the query uses, with BigQuery's types."""
    from sqlglot import exp

    used = {parameter.name for parameter in tree.find_all(exp.Parameter)}
    return [_parameter(name, value) for name, value in values.items() if name in used]


def parameter_values(config: "QueryJob | QueryJobConfig") -> dict[str, Any]:
    """Return the values of a job's parameters by their names."""
    return {p.name: list(p.values) if hasattr(p, "values") else p.value for p in config.query_parameters}


def _parameter(name: str, value: Any) -> "ScalarQueryParameter | ArrayQueryParameter":
    from google.cloud.bigquery import ArrayQueryParameter, ScalarQueryParameter

    if isinstance(value, list):
        return ArrayQueryParameter(name, "STRING", value)
    types = {bool: "BOOL", int: "INT64", float: "FLOAT64", str: "STRING"}
    return ScalarQueryParameter(name, types[type(value)], value)
