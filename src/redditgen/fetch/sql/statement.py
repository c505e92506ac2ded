"""Parses BigQuery SQL with sqlglot: checks that a query is one SELECT, and lists the tables that it reads."""

import re
from typing import TYPE_CHECKING

from redditgen.errors import InputError
from redditgen.runtime.library_logs import loggers_silenced

if TYPE_CHECKING:
    from sqlglot import exp

_ANSI_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def parse_select(sql: str) -> "exp.Query":
    """Return the parsed query.

    Raises InputError unless it is exactly one SELECT: any other statement could change data or cost more.
    """
    import sqlglot
    from sqlglot import exp

    try:
        with loggers_silenced("sqlglot"):
            statements = [tree for tree in sqlglot.parse(sql, read="bigquery") if tree]
    except sqlglot.errors.SqlglotError as error:
        raise InputError(f"the query is no BigQuery SQL: {strip_colours(str(error))[:300]}") from error
    if len(statements) != 1 or not isinstance(statements[0], exp.Query):
        raise InputError("the query must be one SELECT and nothing else, no script and nothing that writes")
    return statements[0]


def tables_in_query(tree: "exp.Query") -> list[str]:
    """Return the names of the tables that a query reads, with project and dataset, in alphabetical order."""
    from sqlglot import exp

    names = {".".join(part.name for part in table.parts) for table in tree.find_all(exp.Table)}
    return sorted(names - {cte.alias for cte in tree.find_all(exp.CTE)})


def strip_colours(words: str) -> str:
    """Return a message on one line, without the ANSI colours in which sqlglot marks the place of an error."""
    return " ".join(_ANSI_COLOUR.sub("", words).split())
