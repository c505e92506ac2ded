"""The local engine: runs the query with DuckDB over files of posts, without a network."""

import glob
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from redditgen.errors import InputError
from redditgen.fetch.files import NEEDED, OPTIONAL, PostsFile, complaint
from redditgen.fetch.query import TABLE

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_TYPES = {**dict.fromkeys((*NEEDED, *OPTIONAL), "VARCHAR"), "score": "BIGINT", "over_18": "BOOLEAN"}
# In text files: pandas writes a column of whole numbers as 5.0 as soon as one is missing.
_TYPES_IN_TEXT = _TYPES | {"score": "DOUBLE"}

_VIEW = "posts"
_ROWS_AT_ONCE = 10_000


class LocalPosts:
    """The posts of some files under the name of the query's table; use it in a `with` block.

    A file without scores counts as having just `min_score`, one without authors as having another for each post, one
    without over_18 as having none. Where there is no id, the place in the file stands for it.
    """

    def __init__(self, files: Sequence[PostsFile], *, min_score: int) -> None:
        import duckdb

        self._files = files
        # Neither installs nor loads an extension by itself: that would go to the network.
        self._connection = duckdb.connect(
            config={"autoinstall_known_extensions": False, "autoload_known_extensions": False}
        )
        with self._own_errors():
            self._connection.execute(f"CREATE VIEW {_VIEW} AS {_union(files, min_score)}")

    def count(self) -> int:
        """How many posts there are."""
        with self._own_errors():
            row = self._execute(f"SELECT COUNT(*) FROM {_VIEW}", {}).fetchone()
        assert row is not None
        return int(row[0])

    def run(self, sql: str, parameters: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
        """The rows of a query in BigQuery Standard SQL."""
        with self._own_errors():
            result = self._execute(translate(sql), parameters)
            while rows := result.fetchmany(_ROWS_AT_ONCE):
                yield from rows

    def _execute(self, sql: str, parameters: Mapping[str, Any]) -> "DuckDBPyConnection":
        # In a thread of its own: DuckDB, called from the main thread, misses every other Ctrl-C until the query ends.
        with ThreadPoolExecutor(max_workers=1) as thread:
            result = thread.submit(self._connection.execute, sql, dict(parameters))
            try:
                return result.result()
            except KeyboardInterrupt:
                self._connection.interrupt()
                raise

    @contextmanager
    def _own_errors(self) -> Iterator[None]:
        import duckdb

        try:
            yield
        except duckdb.Error as error:
            raise InputError(f"{self._culprit(str(error))}: can't be read: {complaint(error)}") from error

    def _culprit(self, message: str) -> str:
        """The file that DuckDB complains of; all of them where it does not say."""
        names = [str(file.path) for file in self._files]
        return next((name for name in names if name in message), ", ".join(names))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()


def translate(sql: str) -> str:
    """BigQuery Standard SQL as DuckDB's, with the view in place of the query's table."""
    import sqlglot
    from sqlglot import exp

    tree = sqlglot.parse_one(sql, read="bigquery")
    for table in list(tree.find_all(exp.Table)):
        if ".".join(part.name for part in table.parts) == TABLE:
            table.replace(exp.table_(_VIEW))
    return tree.sql(dialect="duckdb", identify=True, comments=False)


def _union(files: Sequence[PostsFile], min_score: int) -> str:
    return " UNION ALL ".join(_select(file, number, min_score) for number, file in enumerate(files))


def _select(file: PostsFile, number: int, min_score: int) -> str:
    place = f"'{number:06}-' || lpad(CAST(row_number() OVER () AS VARCHAR), 12, '0')"
    sources = {column: f'"{column}"' for column in _TYPES}
    instead = {"score": str(min_score), "over_18": "FALSE", "id": place}
    instead["author"] = place if "id" in file.absent else sources["id"]
    sources |= {column: instead[column] for column in file.absent}
    columns = ", ".join(f"CAST({source} AS {_TYPES[column]}) AS {column}" for column, source in sources.items())
    return f"SELECT {columns} FROM {_table_function(file)}"


def _table_function(file: PostsFile) -> str:
    path = _literal(glob.escape(str(file.path)))  # DuckDB takes a path for a pattern
    if file.format == "Parquet":
        return f"read_parquet({path})"
    if file.format == "NDJSON":
        columns = {name: type for name, type in _TYPES_IN_TEXT.items() if name not in file.absent}
        return f"read_json({path}, format = 'newline_delimited', columns = {_struct(columns)})"
    # Not parallel = false: that reader drops, without a word, what stands behind a quote that is never closed.
    options = """auto_detect = false, header = true, delim = ',', quote = '"', escape = '"'"""
    return f"read_csv({path}, {options}, columns = {_struct(_csv_types(file.columns))})"


def _csv_types(header: Sequence[str]) -> dict[str, str]:
    """A type for each column of the file; those that the query does not read get a name that can't be in its way."""
    known = [name if name in _TYPES and name not in header[:place] else "" for place, name in enumerate(header)]
    return {name or f"column {place}": _TYPES_IN_TEXT.get(name, "VARCHAR") for place, name in enumerate(known)}


def _struct(types: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{_literal(name)}: {_literal(type)}" for name, type in types.items()) + "}"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
