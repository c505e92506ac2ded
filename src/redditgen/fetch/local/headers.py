"""Finds the columns of a file of posts without reading all of it, and the line that makes a file unreadable."""

import contextlib
import csv
import glob
import gzip
import itertools
import json
import zlib
from collections.abc import Iterable
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Literal, cast

from redditgen.errors import InputError
from redditgen.fetch.sql import duckdb_connection
from redditgen.fetch.sql.duckdb_connection import short_message
from redditgen.files.text import not_utf8_error

Format = Literal["Parquet", "CSV", "NDJSON"]


# NDJSON has no header: its columns are the keys of its first lines.
_INSPECTED_LINES = 1000

# gzip raises EOFError for a truncated file, and zlib.error for a damaged one.
_UNREADABLE = (OSError, EOFError, zlib.error)

# Pairs of a column's name and its DuckDB type.
Columns = list[tuple[str, str]]


def read_columns(path: Path, format: Format) -> Columns:
    """Return the columns in the file's order, with names in lower case, except NDJSON's, which are case-sensitive.

    Raises InputError where the file can't be read.
    """
    import duckdb

    reader = {"Parquet": _parquet_columns, "CSV": _csv_columns, "NDJSON": _ndjson_columns}[format]
    try:
        return reader(path)
    # The UTF-8 decoder raises ValueError, and so does int() for thousands of digits.
    except (*_UNREADABLE, ValueError, csv.Error, duckdb.Error) as error:
        if isinstance(error, UnicodeDecodeError):
            refuse_not_utf8(path)
        raise InputError(f"{path}: can't be read as {format}: {short_message(error)}") from error


def _parquet_columns(path: Path) -> Columns:
    with duckdb_connection.connect_offline() as connection:
        result = duckdb_connection.execute(
            connection, "SELECT * FROM read_parquet(?) LIMIT 0", [glob.escape(str(path))]
        )
        return [(name.lower(), str(type)) for name, type, *_ in result.description or []]


def _csv_columns(path: Path) -> Columns:
    with TextIOWrapper(_open(path), encoding="utf-8-sig", newline="") as file:
        header = next(csv.reader(file), [])
    if not header:
        raise InputError(f"{path}: empty: no header line; the first line must name the columns subreddit and title")
    return _as_varchar(name.strip().lower() for name in header)


def _ndjson_columns(path: Path) -> Columns:
    keys: dict[str, None] = {}
    with _open(path) as file:
        for number, line in enumerate(itertools.islice(file, _INSPECTED_LINES), start=1):
            keys |= dict.fromkeys(_parse_keys(line, f"{path}: line {number}"))
    if not keys:
        raise InputError(f"{path}: empty: no posts; NDJSON has one JSON object a line")
    return _as_varchar(keys)


def _as_varchar(names: Iterable[str]) -> Columns:
    return [(name, "VARCHAR") for name in names]


def refuse_not_utf8(path: Path) -> None:
    """Raise InputError that names the first line that is not UTF-8; return where the file can't be read again."""
    with contextlib.suppress(*_UNREADABLE), _open(path) as lines:
        raise not_utf8_error(path, lines)


def refuse_line(path: Path, near: int) -> None:
    """Raise InputError for the NDJSON line that is not a JSON object, at or just before DuckDB's line number `near`.

    DuckDB does not count blank lines, and where a line is not JSON it names the next one. Returns where both lines are
    valid or the file can't be read again.
    """
    with contextlib.suppress(*_UNREADABLE), _open(path) as file:
        nonblank = ((number, line) for number, line in enumerate(file, start=1) if line.strip())
        for number, line in itertools.islice(nonblank, max(0, near - 2), near):
            _parse_keys(line, f"{path}: line {number}")


def _parse_keys(line: bytes, where: str) -> Iterable[str]:
    try:
        post = json.loads(line.rstrip(b"\r\n").decode("utf-8-sig")) if line.strip() else {}
    except json.JSONDecodeError as error:
        what = error.msg.removesuffix(" at")
        raise InputError(f"{where}: not JSON: {what} at character {error.pos}; mend or delete it") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: not UTF-8 at byte {error.start}; mend or delete it") from error
    except RecursionError as error:
        raise InputError(f"{where}: nested too deep to be read; mend or delete it") from error
    if not isinstance(post, dict):
        raise InputError(f"{where}: not a JSON object; NDJSON has one post a line, as an object")
    return post


def _open(path: Path) -> IO[bytes]:
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    return cast(IO[bytes], opener(path, "rb"))
