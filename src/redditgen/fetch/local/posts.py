"""Runs queries with DuckDB over local files of posts, without a network.

Each file becomes a view with redditgen's columns (redditgen.fetch.local.views), and the query is translated to DuckDB's
dialect. DuckDB reads and judges the posts once: the result is kept in a temporary table for later queries. Files that
DuckDB refuses for half a surrogate pair or for long lines are read again in a way that it accepts.
"""

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from redditgen.errors import InputError
from redditgen.fetch.local import views
from redditgen.fetch.local.files import PostsFile
from redditgen.fetch.local.headers import refuse_line, refuse_not_utf8
from redditgen.fetch.sql import duckdb_connection
from redditgen.fetch.sql.duckdb_connection import short_message
from redditgen.fetch.sql.duckdb_dialect import DATASET, SCHEMA, matching_tables, translate
from redditgen.fetch.sql.query import JUDGED_POSTS, REPORT_TABLE
from redditgen.fetch.sql.tables import TableChoice
from redditgen.files import surrogates
from redditgen.runtime.progress import Progress

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_T = TypeVar("_T")

# Above this, DuckDB writes to the temporary folder. Python and what DuckDB does not count come on top of it.
_MEMORY = "700MB"
_THREADS = 8  # the most for which this memory is enough
# Parts of DuckDB's messages for a line above its limit; in a long CSV value it misses the closing quote.
_LONG_LINE_ERRORS = ("maximum_object_size", "Maximum line size", "unterminated quote")
_LINE_NUMBER = re.compile(r" in line ([0-9]+)")

# DuckDB reports its progress only where its own bar is enabled, and prints the bar to standard output by default.
_OPTIONS = "SET TimeZone = 'UTC'; SET enable_progress_bar = true; SET enable_progress_bar_print = false"

_ROWS_AT_ONCE = 10_000

_BAR_DELAY = 2.0  # seconds before a query gets a progress bar
_BAR_INTERVAL = 0.5  # seconds between updates of the bar


class LocalPosts:
    """Local files of posts as tables of fh-bigquery.reddit_posts, to be used in a `with` block.

    A table is named for the month in its files' names, or for the file. With `months`, queries of the report's table
    read the tables of this range instead.
    """

    def __init__(self, files: Sequence[PostsFile], *, months: str | None = None) -> None:
        self._files = files
        self._table_choice = TableChoice.from_options(months=months)
        self._tables: dict[str, list[int]] = defaultdict(list)  # by table, the numbers of its files in `files`
        for number, file in enumerate(files):
            self._tables[file.table].append(number)
        self._views: set[str] = set()
        self._repaired: dict[int, Path] = {}  # by the file's number, a copy without halves of surrogate pairs
        self._long_lines = False  # whether DuckDB's limits on the length of a line are raised
        self._materialized: tuple[str, dict[str, Any]] | None = None  # SQL and parameters of the temporary table
        self._folder = TemporaryDirectory(prefix="redditgen-")
        self._connection = duckdb_connection.connect_offline(**self._config())
        self._thread = ThreadPoolExecutor(max_workers=1)
        duckdb_connection.execute(self._connection, f"{_OPTIONS}; CREATE SCHEMA {SCHEMA}")

    def _config(self) -> dict[str, Any]:
        return {
            "memory_limit": _MEMORY,
            "temp_directory": self._folder.name,
            "threads": min(_THREADS, os.cpu_count() or 1),
        }

    @property
    def table(self) -> str:
        """The table that titles.sql reads: a wildcard for all, or REPORT_TABLE, which `run` replaces with --months."""
        return REPORT_TABLE if self._table_choice.months else f"{DATASET}.*"

    @property
    def columns(self) -> frozenset[str]:
        """The columns that any of the files has, and id; in a file without one, a post's place in it is its id."""
        return frozenset({"id"}.union(*map(views.available_columns, self._files)))

    counts_rules = True

    @property
    def inputs(self) -> list[Path]:
        return [file.path for file in self._files]

    def facts(self) -> dict[str, Any]:
        """Return what the sidecar records about the source: each file with its format, table and column names."""
        return {
            "files": [
                {"file": str(file.path), "format": file.format, "table": file.table, "map": dict(file.names)}
                for file in self._files
            ]
        }

    def run(self, sql: str, parameters: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of one SELECT in BigQuery Standard SQL; `parameters` are the values of its @names.

        Raises InputError where the query or a file can't be read, or the temporary folder has no room.
        """
        values = {**parameters, **self._table_choice.suffixes}
        translated = translate(self._table_choice.put_into(sql), self._tables, keep=JUDGED_POSTS)
        with self._map_errors():
            for view in translated.views:
                self._create_view(view)
            if translated.kept:
                self._materialize(translated.kept, values)
            rows = self._with_workarounds(lambda: self._execute_and_fetch(translated.sql, values))
            while rows:
                yield from rows
                rows = self._run_in_thread(self._fetch_rows)

    def _materialize(self, sql: str, values: Mapping[str, Any]) -> None:
        """Create the temporary table that several queries read, unless the last one read the same table."""
        used = _used_parameters(sql, values)
        if self._materialized == (sql, used):
            return
        self._materialized = None
        self._with_workarounds(lambda: self._execute(f"CREATE OR REPLACE TEMP TABLE {JUDGED_POSTS} AS {sql}", used))
        self._materialized = (sql, used)

    def _execute_and_fetch(self, sql: str, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        self._execute(sql, _used_parameters(sql, values))
        return self._fetch_rows()

    def _execute(self, sql: str, values: Mapping[str, Any]) -> "DuckDBPyConnection":
        return self._connection.execute(sql, dict(values))

    def _fetch_rows(self) -> list[tuple[Any, ...]]:
        return self._connection.fetchmany(_ROWS_AT_ONCE)

    def _with_workarounds(self, work: Callable[[], _T]) -> _T:
        """Run `work`, and again after each error in a file for which there is a workaround."""
        import duckdb

        while True:
            try:
                return self._run_in_thread(work)
            except duckdb.InvalidInputException as error:
                if not self._work_around(str(error)):
                    raise

    def _work_around(self, message: str) -> bool:
        """Change how files are read so that DuckDB's error does not recur; return False where nothing can be done."""
        if "surrogate in string" in message:
            return self._repair_surrogates(message)
        if self._long_lines or not any(words in message for words in _LONG_LINE_ERRORS):
            return False
        self._long_lines = True
        duckdb_connection.execute(self._connection, "SET threads = 1")  # each thread's buffer is then large
        self._recreate_views()
        return True

    def _repair_surrogates(self, message: str) -> bool:
        number = self._file_in_message(message)
        if number is None or number in self._repaired:
            return False
        self._repaired[number] = Path(self._folder.name) / f"{number}.ndjson"
        surrogates.copy_without_surrogates(self._files[number].path, self._repaired[number])
        self._recreate_views()
        return True

    def _recreate_views(self) -> None:
        names, self._views = self._views, set()
        for name in names:
            self._create_view(name)

    def _create_view(self, name: str) -> None:
        if name in self._views:
            return
        if name.endswith("*"):
            names = matching_tables(name, self._tables)
            for table in names:
                self._create_view(table)
            sql = views.wildcard_view(name, names)
        else:
            sql = views.union_all(self._select_from_file(number) for number in self._tables[name])
        view = f"{SCHEMA}.{views.quote_identifier(name)}"
        duckdb_connection.execute(self._connection, f"CREATE OR REPLACE VIEW {view} AS {sql}")
        self._views.add(name)

    def _select_from_file(self, number: int) -> str:
        return views.select_from_file(
            self._files[number], number, instead=self._repaired.get(number), long_lines=self._long_lines
        )

    def _run_in_thread(self, work: Callable[[], _T]) -> _T:
        # DuckDB called from the main thread misses every second Ctrl-C until the query ends.
        future = self._thread.submit(work)
        try:
            finished, _ = wait([future], timeout=_BAR_DELAY)
            return future.result() if finished else self._wait_with_progress(future)
        except KeyboardInterrupt:
            self._connection.interrupt()
            raise

    def _wait_with_progress(self, future: "Future[_T]") -> _T:
        with Progress("querying posts", unit="%", total=100) as progress:
            shown = 0
            while not wait([future], timeout=_BAR_INTERVAL).done:
                percent = max(shown, int(self._connection.query_progress()))
                progress.update(percent - shown)
                shown = percent
            return future.result()

    @contextmanager
    def _map_errors(self) -> Iterator[None]:
        import duckdb

        try:
            yield
        except duckdb.OutOfMemoryException as error:
            raise InputError(
                f"{self._folder.name}: no room for what does not fit in {_MEMORY} of memory: {short_message(error)}; "
                "name a folder with more room in the environment variable TMPDIR, or fetch fewer months"
            ) from error
        except (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException) as error:
            raise InputError(f"the query can't be run: {short_message(error)}") from error
        except duckdb.Error as error:
            raise self._unreadable_error(error) from error

    def _unreadable_error(self, error: Exception) -> InputError:
        """Return the error that names the file DuckDB could not read, or all files where DuckDB names none."""
        words, number = short_message(error), self._file_in_message(str(error))
        if number is None:
            return InputError(f"{', '.join(str(file.path) for file in self._files)}: can't be read: {words}")
        path = self._files[number].path
        if self._files[number].format == "CSV" and "not utf-8" in words:
            refuse_not_utf8(path)
        if self._files[number].format == "NDJSON" and (line := _LINE_NUMBER.search(str(error))):
            refuse_line(path, int(line[1]))
        return InputError(f"{path}: can't be read: {words.replace(str(self._read_path(number)), str(path))}")

    def _file_in_message(self, message: str) -> int | None:
        """Return the number of the file that a message names; of a.json and a.json.gz, the longer name."""
        numbers = {str(self._read_path(number)): number for number in range(len(self._files))}
        return numbers.get(max((name for name in numbers if name in message), key=len, default=""))

    def _read_path(self, number: int) -> Path:
        return self._repaired.get(number, self._files[number].path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown()
        self._connection.close()
        self._folder.cleanup()


def _used_parameters(sql: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if f"${name}" in sql}
