"""DuckDB that keeps off the network, and ends as the rest does at Ctrl-C."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def connect(**config: Any) -> "DuckDBPyConnection":
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
