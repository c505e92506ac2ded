"""Writes the file of titles: as CSV in the report's form, NDJSON or Parquet, by the suffix of its name."""

import csv
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redditgen.errors import InputError, UsageError
from redditgen.fetch.sql.columns import COLUMN_TYPES
from redditgen.files.atomic import refuse_unwritable
from redditgen.files.rows import CsvFile

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".csv", ".parquet", ".ndjson", ".jsonl")

_ROWS_AT_ONCE = 10_000

Row = tuple[Any, ...]


def check_titles_file(path: Path) -> None:
    """Raise UsageError where the suffix is of no known format, InputError where `path` can't be written to."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"{path}: unknown kind of file; --out must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
        )
    refuse_unwritable(path)  # before a query that costs money or takes hours


def write_titles(path: Path, suffix: str, columns: Sequence[str], rows: Iterable[Row]) -> tuple[int, int]:
    """Write the rows to `path`; return the number of different subreddits in them and the number of rows.

    `suffix`, one of SUFFIXES, names the format, since `path` can be a temporary one. Without a column `subreddit` the
    first number is 0. Raises InputError where a column has values of several types, which Parquet can't hold.
    """
    open_writer = {".csv": _csv_writer, ".parquet": _parquet_writer}.get(suffix.lower(), _ndjson_writer)
    subreddit_index = columns.index("subreddit") if "subreddit" in columns else None
    subreddits: set[Any] = set()
    count = 0
    remaining = iter(rows)
    with open_writer(path, columns) as write_rows:
        while batch := list(itertools.islice(remaining, _ROWS_AT_ONCE)):
            write_rows(batch)
            count += len(batch)
            if subreddit_index is not None:
                subreddits.update(row[subreddit_index] for row in batch)
    return len(subreddits), count


WriteRows = Callable[[list[Row]], object]


@contextmanager
def _csv_writer(path: Path, columns: Sequence[str]) -> Iterator[WriteRows]:
    with path.open("w", encoding="utf8", newline="") as file:
        table = csv.writer(CsvFile(file), lineterminator="\r\n")
        table.writerow(columns)
        yield lambda rows: table.writerows(
            [str(cell).lower() if isinstance(cell, bool) else cell for cell in row] for row in rows
        )


@contextmanager
def _ndjson_writer(path: Path, columns: Sequence[str]) -> Iterator[WriteRows]:
    with path.open("w", encoding="utf8", newline="\n") as file:

        def write_rows(rows: list[Row]) -> None:
            for row in rows:
                record = dict(zip(columns, row, strict=True))
                file.write(json.dumps(record, ensure_ascii=False, default=str) + "\n")

        yield write_rows


@contextmanager
def _parquet_writer(path: Path, columns: Sequence[str]) -> Iterator[WriteRows]:
    """Yield a function that writes rows to a Parquet file.

    The first batch of rows determines the columns' types. A column that holds only None in it gets the type that
    COLUMN_TYPES states for its name, or string.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with ExitStack() as files:
        writer: pq.ParquetWriter | None = None

        def write_rows(rows: list[Row]) -> None:
            nonlocal writer
            schema = writer.schema if writer else None
            values = zip(*rows, strict=True)
            arrays = [_arrow_array(name, column, schema) for name, column in zip(columns, values, strict=True)]
            batch = pa.record_batch(arrays, names=list(columns))
            writer = writer or files.enter_context(pq.ParquetWriter(path, batch.schema, compression="zstd"))
            writer.write_batch(batch)

        yield write_rows


def _arrow_array(name: str, values: Sequence[Any], schema: "pa.Schema | None") -> "pa.Array":
    import pyarrow as pa

    try:
        array = pa.array(values, type=schema.field(name).type if schema else None)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InputError(
            f"column {name}: holds values of several types, which Parquet can't; CAST it in the query, or write .csv"
        ) from error
    if pa.types.is_null(array.type):
        return array.cast({"INT64": pa.int64(), "BOOL": pa.bool_()}.get(COLUMN_TYPES.get(name, ""), pa.string()))
    return array
