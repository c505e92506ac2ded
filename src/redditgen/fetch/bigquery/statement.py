"""What may be sent to BigQuery: one SELECT; the tables that it reads, its parameters with their types."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from redditgen.errors import InputError
from redditgen.quiet import quiet

if TYPE_CHECKING:
    from google.cloud.bigquery import ArrayQueryParameter, QueryJob, QueryJobConfig, ScalarQueryParameter
    from sqlglot import exp

_ANSI = re.compile(r"\x1b\[[0-9;]*m")


def select(sql: str) -> "exp.Query":
    """The parsed text; raises InputError unless it is one SELECT, since anything else could change or cost more."""
    import sqlglot
    from sqlglot import exp

    try:
        with quiet("sqlglot"):
            statements = [tree for tree in sqlglot.parse(sql, read="bigquery") if tree]
    except sqlglot.errors.SqlglotError as error:
        raise InputError(f"the query is no BigQuery SQL: {one_line(str(error))[:300]}") from error
    if len(statements) != 1 or not isinstance(statements[0], exp.Query):
        raise InputError("the query must be one SELECT and nothing else, no script and nothing that writes")
    return statements[0]


def tables_read(tree: "exp.Query") -> list[str]:
    """The names of the tables, project and dataset in them, in the order of the alphabet."""
    from sqlglot import exp

    names = {".".join(part.name for part in table.parts) for table in tree.find_all(exp.Table)}
    return sorted(names - {cte.alias for cte in tree.find_all(exp.CTE)})


def parameters(tree: "exp.Query", values: Mapping[str, Any]) -> "list[ScalarQueryParameter | ArrayQueryParameter]":
    """Those of the values that the query has a @name for, with BigQuery's types."""
    from sqlglot import exp

    used = {parameter.name for parameter in tree.find_all(exp.Parameter)}
    return [_parameter(name, value) for name, value in values.items() if name in used]


def values(config: "QueryJob | QueryJobConfig") -> dict[str, Any]:
    """The values of its parameters by their names."""
    return {p.name: list(p.values) if hasattr(p, "values") else p.value for p in config.query_parameters}


def _parameter(name: str, value: Any) -> "ScalarQueryParameter | ArrayQueryParameter":
    from google.cloud.bigquery import ArrayQueryParameter, ScalarQueryParameter

    if isinstance(value, list):
        return ArrayQueryParameter(name, "STRING", value)
    types = {bool: "BOOL", int: "INT64", float: "FLOAT64", str: "STRING"}
    return ScalarQueryParameter(name, types[type(value)], value)


def one_line(words: str) -> str:
    """Words on one line, without colours, in which sqlglot marks the place of an error."""
    return " ".join(_ANSI.sub("", words).split())
