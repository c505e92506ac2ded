"""The columns that a file of posts has, found without reading all of it."""

import csv
import glob
import gzip
import itertools
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Literal

from redditgen.errors import InputError

Format = Literal["Parquet", "CSV", "NDJSON"]

_ADVICE = re.compile(r"\n+(?:Possible |Try |Column |LINE |  file = )|\n Try increasing ")

# NDJSON has no header: a column is there if one of the first lines has its key.
_LINES_LOOKED_AT = 1000

# Names with DuckDB's types.
Columns = list[tuple[str, str]]


def columns(path: Path, format: Format) -> Columns:
    """The columns in the file's order; the names in lower case, but for NDJSON's keys, where case counts.

    Raises InputError where the file can't be read.
    """
    import duckdb

    read = {"Parquet": _parquet, "CSV": _csv, "NDJSON": _ndjson}[format]
    try:
        return read(path)
    # ValueError: what json and the UTF-8 decoder raise; EOFError: a gzip file that is cut off.
    except (OSError, EOFError, ValueError, RecursionError, csv.Error, duckdb.Error) as error:
        raise InputError(f"{path}: can't be read as {format}: {complaint(error)}") from error


def complaint(error: Exception) -> str:
    """What a reader complains of, on one line, without DuckDB's advice on options that redditgen's user can't set."""
    words = " ".join(_ADVICE.split(str(error), maxsplit=1)[0].split())
    # DuckDB says where first and what last; between them stands the record, which can be long.
    return words if len(words) < 300 else f"{words[:150]} ... {words[-150:]}"


def _parquet(path: Path) -> Columns:
    import duckdb

    with duckdb.connect() as connection:
        result = connection.execute("SELECT * FROM read_parquet(?) LIMIT 0", [glob.escape(str(path))])
        return [(name.lower(), str(type)) for name, type, *_ in result.description or []]


def _csv(path: Path) -> Columns:
    with _open_text(path) as file:
        header = next(csv.reader(file), [])
    if not header:
        raise InputError(f"{path}: empty: no header line; the first line must name the columns subreddit and title")
    return _text(name.strip().lower() for name in header)


def _ndjson(path: Path) -> Columns:
    keys: dict[str, None] = {}
    with _open_text(path) as file:
        for number, line in enumerate(itertools.islice(file, _LINES_LOOKED_AT), start=1):
            keys |= dict.fromkeys(_keys(line, f"{path}: line {number}"))
    if not keys:
        raise InputError(f"{path}: empty: no posts; NDJSON has one JSON object a line")
    return _text(keys)


def _text(names: Iterable[str]) -> Columns:
    return [(name, "VARCHAR") for name in names]


def _keys(line: str, where: str) -> Iterable[str]:
    try:
        post = json.loads(line) if line.strip() else {}
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not JSON: {error.msg} at character {error.pos}; mend or delete it") from error
    if not isinstance(post, dict):
        raise InputError(f"{where}: not a JSON object; NDJSON has one post a line, as an object")
    return post


def _open_text(path: Path) -> IO[str]:
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    return opener(path, "rt", encoding="utf-8-sig", newline="")
