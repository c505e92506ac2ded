"""DuckDB that keeps off the network, and ends as the rest does at Ctrl-C."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def connect_offline(**config: Any) -> "DuckDBPyConnection":
    """A connection that neither installs nor loads an extension by itself."""
    import duckdb

    config = {"autoinstall_known_extensions": False, "autoload_known_extensions": False} | config
    return duckdb.connect(config=config)


def execute(connection: "DuckDBPyConnection", sql: str, parameters: Sequence[str] = ()) -> "DuckDBPyConnection":
    """Execute a short statement in the main thread, where DuckDB makes a RuntimeError of Ctrl-C."""
    try:
        return connection.execute(sql, parameters)
    except RuntimeError as error:
        if str(error) == "Query interrupted":
            raise KeyboardInterrupt from error
        raise


_ADVICE = re.compile(r"\n+(?:Possible |Try |Column |LINE |  file = )|\n Try increasing ")


def short_message(error: Exception) -> str:
    """What a reader complains of, on one line, without DuckDB's advice on options that redditgen's user can't set."""
    words = " ".join(_ADVICE.split(str(error), maxsplit=1)[0].split())
    # DuckDB says where first and what last; between them stands the record, which can be long.
    return words if len(words) < 300 else f"{words[:150]} ... {words[-150:]}"
