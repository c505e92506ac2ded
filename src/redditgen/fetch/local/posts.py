"""The local engine: runs queries with DuckDB over files of posts, without a network."""

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

_MEMORY = "700MB"  # beyond it DuckDB writes to the temporary folder; Python and what DuckDB does not count come on top
_THREADS = 8  # the most that get along with that
# What DuckDB says of a line that is longer than it expects; in CSV it misses the quote that ends a long value.
_TOO_LONG = ("maximum_object_size", "Maximum line size", "unterminated quote")
_LINE = re.compile(r" in line ([0-9]+)")

# Its own bar goes to standard output; without one DuckDB does not say how far it is.
_OPTIONS = "SET TimeZone = 'UTC'; SET enable_progress_bar = true; SET enable_progress_bar_print = false"

_ROWS_AT_ONCE = 10_000

_QUICK = 2.0  # seconds in which a query needs no bar
_LOOK = 0.5


class LocalPosts:
    """Files of posts as tables of fh-bigquery.reddit_posts, named for the month in a file's name, or for the file.

    Use it in a `with` block. With `months`, queries of the report's table read those of this range instead.
    """

    def __init__(self, files: Sequence[PostsFile], *, months: str | None = None) -> None:
        self._files = files
        self._range = TableChoice.from_options(months=months)
        self._tables: dict[str, list[int]] = defaultdict(list)
        for number, file in enumerate(files):
            self._tables[file.table].append(number)
        self._views: set[str] = set()
        self._mended: dict[int, Path] = {}
        self._long_lines = False
        self._kept: tuple[str, dict[str, Any]] | None = None
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
        """What titles.sql is to read: all tables, or the one that stands for the range of months."""
        return REPORT_TABLE if self._range.months else f"{DATASET}.*"

    @property
    def columns(self) -> frozenset[str]:
        """The columns that one of the files has, and id, for which the place in the file stands if need be."""
        return frozenset({"id"}.union(*map(views.available_columns, self._files)))

    counts_rules = True

    @property
    def inputs(self) -> list[Path]:
        return [file.path for file in self._files]

    def facts(self) -> dict[str, Any]:
        """What a sidecar tells of the source."""
        return {
            "files": [
                {"file": str(file.path), "format": file.format, "table": file.table, "map": dict(file.names)}
                for file in self._files
            ]
        }

    def run(self, sql: str, parameters: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
        """The rows of one SELECT in BigQuery Standard SQL."""
        values = {**parameters, **self._range.suffixes}
        translated = translate(self._range.put_into(sql), self._tables, keep=JUDGED_POSTS)
        with self._own_errors():
            for view in translated.views:
                self._make_view(view)
            if translated.kept:
                self._keep(translated.kept, values)
            rows = self._again(lambda: self._start(translated.sql, values))
            while rows:
                yield from rows
                rows = self._in_thread(self._next)

    def _keep(self, sql: str, values: Mapping[str, Any]) -> None:
        """Make the table that several queries read, unless the last one has made it: posts are read and judged once."""
        used = _used(sql, values)
        if self._kept == (sql, used):
            return
        self._kept = None
        self._again(lambda: self._execute(f"CREATE OR REPLACE TEMP TABLE {JUDGED_POSTS} AS {sql}", used))
        self._kept = (sql, used)

    def _start(self, sql: str, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        self._execute(sql, _used(sql, values))
        return self._next()

    def _execute(self, sql: str, values: Mapping[str, Any]) -> "DuckDBPyConnection":
        return self._connection.execute(sql, dict(values))

    def _next(self) -> list[tuple[Any, ...]]:
        return self._connection.fetchmany(_ROWS_AT_ONCE)

    def _again(self, work: Callable[[], _T]) -> _T:
        """Do it, and once more after each obstacle in a file that can be got round."""
        import duckdb

        while True:
            try:
                return self._in_thread(work)
            except duckdb.InvalidInputException as error:
                if not self._got_round(str(error)):
                    raise

    def _got_round(self, message: str) -> bool:
        if "surrogate in string" in message:
            return self._mend(message)
        if self._long_lines or not any(words in message for words in _TOO_LONG):
            return False
        self._long_lines = True
        duckdb_connection.execute(self._connection, "SET threads = 1")
        self._make_views_anew()
        return True

    def _mend(self, message: str) -> bool:
        number = self._culprit(message)
        if number is None or number in self._mended:
            return False
        self._mended[number] = Path(self._folder.name) / f"{number}.ndjson"
        surrogates.copy_without_surrogates(self._files[number].path, self._mended[number])
        self._make_views_anew()
        return True

    def _make_views_anew(self) -> None:
        made, self._views = self._views, set()
        for name in made:
            self._make_view(name)

    def _make_view(self, name: str) -> None:
        if name in self._views:
            return
        if name.endswith("*"):
            names = matching_tables(name, self._tables)
            for one in names:
                self._make_view(one)
            sql = views.wildcard_view(name, names)
        else:
            sql = views.union_all(self._select(number) for number in self._tables[name])
        view = f"{SCHEMA}.{views.quote_identifier(name)}"
        duckdb_connection.execute(self._connection, f"CREATE OR REPLACE VIEW {view} AS {sql}")
        self._views.add(name)

    def _select(self, number: int) -> str:
        return views.select_from_file(
            self._files[number], number, instead=self._mended.get(number), long_lines=self._long_lines
        )

    def _in_thread(self, work: Callable[[], _T]) -> _T:
        # DuckDB, called from the main thread, misses every other Ctrl-C until the query ends.
        result = self._thread.submit(work)
        try:
            done, _ = wait([result], timeout=_QUICK)
            return result.result() if done else self._with_progress(result)
        except KeyboardInterrupt:
            self._connection.interrupt()
            raise

    def _with_progress(self, result: "Future[_T]") -> _T:
        with Progress("querying posts", unit="%", total=100) as progress:
            shown = 0
            while not wait([result], timeout=_LOOK).done:
                done = max(shown, int(self._connection.query_progress()))
                progress.update(done - shown)
                shown = done
            return result.result()

    @contextmanager
    def _own_errors(self) -> Iterator[None]:
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
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> InputError:
        """Of the file that DuckDB complains of; of all of them where it does not say."""
        words, number = short_message(error), self._culprit(str(error))
        if number is None:
            return InputError(f"{', '.join(str(file.path) for file in self._files)}: can't be read: {words}")
        path = self._files[number].path
        if self._files[number].format == "CSV" and "not utf-8" in words:
            refuse_not_utf8(path)
        if self._files[number].format == "NDJSON" and (line := _LINE.search(str(error))):
            refuse_line(path, int(line[1]))
        return InputError(f"{path}: can't be read: {words.replace(str(self._read_path(number)), str(path))}")

    def _culprit(self, message: str) -> int | None:
        """The file that is named in a message: of a.json and a.json.gz the longer name."""
        named = {str(self._read_path(number)): number for number in range(len(self._files))}
        return named.get(max((name for name in named if name in message), key=len, default=""))

    def _read_path(self, number: int) -> Path:
        return self._mended.get(number, self._files[number].path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown()
        self._connection.close()
        self._folder.cleanup()


def _used(sql: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if f"${name}" in sql}
