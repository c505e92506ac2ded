"""What may be sent to BigQuery: one SELECT; the tables that it reads, its parameters with their types."""

import re
from typing import TYPE_CHECKING

from redditgen.errors import InputError
from redditgen.runtime.library_logs import loggers_silenced

if TYPE_CHECKING:
    from sqlglot import exp

_ANSI = re.compile(r"\x1b\[[0-9;]*m")


def parse_select(sql: str) -> "exp.Query":
    """The parsed text; raises InputError unless it is one SELECT, since anything else could change or cost more."""
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
    """The names of the tables, project and dataset in them, in the order of the alphabet."""
    from sqlglot import exp

    names = {".".join(part.name for part in table.parts) for table in tree.find_all(exp.Table)}
    return sorted(names - {cte.alias for cte in tree.find_all(exp.CTE)})


def strip_colours(words: str) -> str:
    """Words on one line, without colours, in which sqlglot marks the place of an error."""
    return " ".join(_ANSI.sub("", words).split())
