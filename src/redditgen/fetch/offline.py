"""DuckDB that keeps off the network."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def connect(**config: Any) -> "DuckDBPyConnection":
    """A connection that neither installs nor loads an extension by itself."""
    import duckdb

    config = {"autoinstall_known_extensions": False, "autoload_known_extensions": False} | config
    return duckdb.connect(config=config)
