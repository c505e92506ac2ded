"""Streams the rows of CSV, NDJSON and Parquet files as text. Memory does not grow with the size of the file."""

import csv
import itertools
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from redditgen.errors import InputError, MissingError
from redditgen.files import surrogates
from redditgen.files.text import open_text

if TYPE_CHECKING:
    import pyarrow.parquet as pq

_FIELD_MAX = 1 << 24  # characters of a cell; after an unclosed quote the rest of the file is one cell
_HEAD_LINES = 100  # lines of NDJSON that are read for the names of the columns
_ROWS_AT_ONCE = 4096  # rows of Parquet in memory


class Table(Protocol):
    """An open file of rows with named columns."""

    @property
    def columns(self) -> Sequence[str]: ...

    def rows(self, names: Sequence[str]) -> Iterator[tuple[str, ...]]:
        """Yield for each row the cells of the named columns as text; a cell that is absent or null is ''."""


@contextmanager
def open_table(path: Path, *, made_by: str) -> Iterator[Table]:
    """Open a file by its suffix: .parquet, .ndjson (.jsonl, .json), or else CSV with a header line.

    Raises MissingError where the file does not exist, with `made_by` as the end of its message, and InputError where
    it can't be read, also while the block reads rows.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        with _open_parquet(path, made_by) as opened:
            yield opened
        return
    with open_text(path, made_by=made_by) as file:
        yield _Ndjson.of(file, path) if suffix in (".ndjson", ".jsonl", ".json") else _Csv.of(file, path)


@dataclass(frozen=True)
class _Csv:
    columns: Sequence[str]
    cells: Iterator[list[str]]

    @classmethod
    def of(cls, file: TextIO, path: Path) -> "_Csv":
        cells = _csv_rows(file, path)
        header = [name.strip() for name in next(cells, [])]
        if not header:
            raise InputError(f"{path}: is empty; a CSV with a header line is needed")
        return cls(header, cells)

    def rows(self, names: Sequence[str]) -> Iterator[tuple[str, ...]]:
        indices = [self.columns.index(name) for name in names]
        for cells in self.cells:
            yield tuple(cells[index] for index in indices)


def _csv_rows(file: TextIO, path: Path) -> Iterator[list[str]]:
    """Yield the header and the rows of a CSV, each as long as the header; skips blank lines.

    Raises InputError for a row with more cells than the header that are not empty, and for invalid CSV.
    """
    csv.field_size_limit(_FIELD_MAX)
    reader = csv.reader(file, strict=True)
    width = 0
    try:
        for cells in reader:
            width = width or len(cells)
            if any(cells[width:]):
                raise InputError(
                    f"{path}: line {reader.line_num} has {len(cells)} fields, the header {width}; "
                    "a text that holds a comma must stand in quotes"
                )
            if cells:
                yield cells + [""] * (width - len(cells))
    except csv.Error as error:
        raise InputError(f"{path}: line {reader.line_num}: {error}; is a quote left open?") from error


@dataclass(frozen=True)
class _Ndjson:
    columns: Sequence[str]
    objects: Iterator[dict[str, Any]]

    @classmethod
    def of(cls, file: TextIO, path: Path) -> "_Ndjson":
        objects = _json_objects(file, path)
        head = list(itertools.islice(objects, _HEAD_LINES))
        if not head:
            raise InputError(f"{path}: is empty; a JSON object a line is needed")
        return cls(list(dict.fromkeys(itertools.chain.from_iterable(head))), itertools.chain(head, objects))

    def rows(self, names: Sequence[str]) -> Iterator[tuple[str, ...]]:
        for row in self.objects:
            yield tuple(surrogates.replace_surrogates(_cell_text(row.get(name))) for name in names)


def _json_objects(file: TextIO, path: Path) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of an NDJSON file; skips blank lines. Raises InputError for a line that holds none."""
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{path}: line {number} is no JSON: {error.msg} at character {error.colno}") from error
        except RecursionError as error:
            raise InputError(f"{path}: line {number} is no JSON that can be read: it is nested too deep") from error
        if not isinstance(value, dict):
            raise InputError(f"{path}: line {number} is no JSON object; an object a line is needed")
        yield value


@contextmanager
def _open_parquet(path: Path, made_by: str) -> Iterator["_Parquet"]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            yield _Parquet(file)
    except FileNotFoundError as error:
        raise MissingError(f"{path}: no such file; {made_by}") from error
    except (OSError, pa.ArrowException) as error:
        cause = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise InputError(f"{path}: can't be read as Parquet: {cause}") from error


@dataclass(frozen=True)
class _Parquet:
    file: "pq.ParquetFile"

    @property
    def columns(self) -> Sequence[str]:
        names: list[str] = self.file.schema_arrow.names
        return names

    def rows(self, names: Sequence[str]) -> Iterator[tuple[str, ...]]:
        for batch in self.file.iter_batches(_ROWS_AT_ONCE, columns=list(dict.fromkeys(names))):
            columns = [map(_cell_text, batch.column(name).to_pylist()) for name in names]
            yield from zip(*columns, strict=True)


def _cell_text(value: Any) -> str:
    """Return a cell as text: lists and objects as JSON, null as ''."""
    if isinstance(value, str):
        return value
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return "" if value is None else str(value)
