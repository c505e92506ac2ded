"""Rows of a CSV, NDJSON or Parquet file as texts, one after another, whatever the size of the file."""

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

_FIELD_MAX = 1 << 24  # characters of a cell; behind a quote left open all the file is one
_HEAD = 100  # lines of NDJSON in which each column must come once
_ROWS_AT_ONCE = 4096


class Table(Protocol):
    """A file of rows; give them by the names of their columns."""

    @property
    def columns(self) -> Sequence[str]: ...

    def rows(self, names: Sequence[str]) -> Iterator[tuple[str, ...]]:
        """The cells of these columns, row by row; what is absent or null is ''."""


@contextmanager
def open_table(path: Path, *, made_by: str) -> Iterator[Table]:
    """Open a file by its suffix: .parquet, .ndjson (.jsonl, .json), or else CSV with a header line.

    Whatever can't be read raises InputError, in the block too; `made_by` ends the message where there is no such file.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        with _parquet(path, made_by) as opened:
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
        cells = _cells(file, path)
        header = [name.strip() for name in next(cells, [])]
        if not header:
            raise InputError(f"{path}: is empty; a CSV with a header line is needed")
        return cls(header, cells)

    def rows(self, names: Sequence[str]) -> Iterator[tuple[str, ...]]:
        places = [self.columns.index(name) for name in names]
        for cells in self.cells:
            yield tuple(cells[place] for place in places)


def _cells(file: TextIO, path: Path) -> Iterator[list[str]]:
    """The header and the rows, each as long as the header; blank lines are not rows."""
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
        objects = _objects(file, path)
        head = list(itertools.islice(objects, _HEAD))
        if not head:
            raise InputError(f"{path}: is empty; a JSON object a line is needed")
        return cls(list(dict.fromkeys(itertools.chain.from_iterable(head))), itertools.chain(head, objects))

    def rows(self, names: Sequence[str]) -> Iterator[tuple[str, ...]]:
        for one in self.objects:
            yield tuple(surrogates.replace_surrogates(_text(one.get(name))) for name in names)


def _objects(file: TextIO, path: Path) -> Iterator[dict[str, Any]]:
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
def _parquet(path: Path, made_by: str) -> Iterator["_Parquet"]:
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
            columns = [map(_text, batch.column(name).to_pylist()) for name in names]
            yield from zip(*columns, strict=True)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return "" if value is None else str(value)
