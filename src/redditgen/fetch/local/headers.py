"""The columns that a file of posts has, found without reading all of it."""

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


# NDJSON has no header: a column is there if one of the first lines has its key.
_LINES_LOOKED_AT = 1000

# EOFError: a gzip file that is cut off; zlib.error: one that is damaged.
_UNREADABLE = (OSError, EOFError, zlib.error)

# Names with DuckDB's types.
Columns = list[tuple[str, str]]


def read_columns(path: Path, format: Format) -> Columns:
    """The columns in the file's order; the names in lower case, but for NDJSON's keys, where case counts.

    Raises InputError where the file can't be read.
    """
    import duckdb

    read = {"Parquet": _parquet, "CSV": _csv, "NDJSON": _ndjson}[format]
    try:
        return read(path)
    # ValueError: what the UTF-8 decoder raises, and int() for thousands of digits.
    except (*_UNREADABLE, ValueError, csv.Error, duckdb.Error) as error:
        if isinstance(error, UnicodeDecodeError):
            refuse_not_utf8(path)
        raise InputError(f"{path}: can't be read as {format}: {short_message(error)}") from error


def _parquet(path: Path) -> Columns:
    with duckdb_connection.connect_offline() as connection:
        result = duckdb_connection.execute(
            connection, "SELECT * FROM read_parquet(?) LIMIT 0", [glob.escape(str(path))]
        )
        return [(name.lower(), str(type)) for name, type, *_ in result.description or []]


def _csv(path: Path) -> Columns:
    with TextIOWrapper(_open(path), encoding="utf-8-sig", newline="") as file:
        header = next(csv.reader(file), [])
    if not header:
        raise InputError(f"{path}: empty: no header line; the first line must name the columns subreddit and title")
    return _text(name.strip().lower() for name in header)


def _ndjson(path: Path) -> Columns:
    keys: dict[str, None] = {}
    with _open(path) as file:
        for number, line in enumerate(itertools.islice(file, _LINES_LOOKED_AT), start=1):
            keys |= dict.fromkeys(_keys(line, f"{path}: line {number}"))
    if not keys:
        raise InputError(f"{path}: empty: no posts; NDJSON has one JSON object a line")
    return _text(keys)


def _text(names: Iterable[str]) -> Columns:
    return [(name, "VARCHAR") for name in names]


def refuse_not_utf8(path: Path) -> None:
    """Raise InputError, if the file can be read once more, for the first line that is not UTF-8."""
    with contextlib.suppress(*_UNREADABLE), _open(path) as lines:
        raise not_utf8_error(path, lines)


def refuse_line(path: Path, near: int) -> None:
    """Raise InputError for the line of NDJSON that is no post, near the one that DuckDB names, if there is one.

    DuckDB does not count blank lines, and where a line is no JSON it names the one behind.
    """
    with contextlib.suppress(*_UNREADABLE), _open(path) as file:
        filled = ((number, line) for number, line in enumerate(file, start=1) if line.strip())
        for number, line in itertools.islice(filled, max(0, near - 2), near):
            _keys(line, f"{path}: line {number}")


def _keys(line: bytes, where: str) -> Iterable[str]:
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
