"""Connections to DuckDB that make no network requests and raise KeyboardInterrupt at Ctrl-C."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def connect_offline(**config: Any) -> "DuckDBPyConnection":
    """Return a connection to a new in-memory database that neither installs nor loads extensions by itself.

    `config` holds further settings of DuckDB.
    """
    import duckdb

    config = {"autoinstall_known_extensions": False, "autoload_known_extensions": False} | config
    return duckdb.connect(config=config)


def execute(connection: "DuckDBPyConnection", sql: str, parameters: Sequence[str] = ()) -> "DuckDBPyConnection":
    """Execute a short statement in the main thread, where DuckDB raises RuntimeError at Ctrl-C.

    Raises KeyboardInterrupt instead.
    """
    try:
        return connection.execute(sql, parameters)
    except RuntimeError as error:
        if str(error) == "Query interrupted":
            raise KeyboardInterrupt from error
        raise


# What precedes advice and context in DuckDB's messages.
_ADVICE = re.compile(r"\n+(?:Possible |Try |Column |LINE |  file = )|\n Try increasing ")


def short_message(error: Exception) -> str:
    """Return the message of a DuckDB error on one line of about 300 characters at most.

    DuckDB's advice on options is cut off, since users of redditgen can't set them.
    """
    words = " ".join(_ADVICE.split(str(error), maxsplit=1)[0].split())
    # DuckDB names the place first and the cause last; between them it quotes the record, which can be long.
    return words if len(words) < 300 else f"{words[:150]} ... {words[-150:]}"
