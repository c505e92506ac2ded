"""The local files that --from names, and the columns that each has."""

import csv
import glob
import gzip
import itertools
import json
import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from redditgen import bundled
from redditgen.errors import InputError, MissingError

SAMPLE = "sample"

Format = Literal["Parquet", "CSV", "NDJSON"]
_FORMATS: dict[str, Format] = {
    ".parquet": "Parquet",
    ".csv": "CSV",
    ".csv.gz": "CSV",
    **dict.fromkeys((".ndjson", ".jsonl", ".json", ".ndjson.gz", ".jsonl.gz", ".json.gz"), "NDJSON"),
}
_SIDECAR = ".meta.json"

NEEDED = ("subreddit", "title")
OPTIONAL = ("score", "author", "over_18", "id")

_ADVICE = re.compile(r"\n+(?:Possible |Try |Column |LINE |  file = )")

# NDJSON has no header: a column is there if one of the first lines has its key.
_LINES_LOOKED_AT = 1000


@dataclass(frozen=True)
class PostsFile:
    """A file of posts; its columns are in the file's order and, but for NDJSON's, in lower case."""

    path: Path
    format: Format
    columns: tuple[str, ...]

    @property
    def absent(self) -> tuple[str, ...]:
        """The columns that the query reads and the file lacks."""
        return tuple(column for column in OPTIONAL if column not in self.columns)


def find(sources: Sequence[str]) -> list[PostsFile]:
    """Every file behind the sources, each once, in the order given.

    Raises InputError if a source has none, or a file is not of a known format or lacks a column that must be there.
    """
    paths = itertools.chain.from_iterable(_paths(source) for source in sources)
    return [_posts_file(path) for path in {path.resolve(): path for path in paths}.values()]


def _paths(source: str) -> list[Path]:
    if source == SAMPLE:
        return [_sample()]
    path = Path(source).expanduser()
    if path.is_dir():
        return _in_folder(path)
    return [path] if path.exists() else _matches(source, path)


def _sample() -> Path:
    path = bundled.path("data/sample_posts.parquet")
    if not path.exists():
        raise MissingError(f"{path}: the sample posts are not there; scripts/make-sample makes them")
    return path


def _in_folder(folder: Path) -> list[Path]:
    paths = [path for path in sorted(folder.iterdir()) if path.is_file() and _format(path)]
    if not paths:
        raise InputError(f"{folder}: no posts in this folder; looked for {_known_suffixes()}")
    return paths


def _matches(source: str, pattern: Path) -> list[Path]:
    # Not Path.glob: it refuses absolute patterns.
    found = (Path(name) for name in sorted(glob.glob(str(pattern), recursive=True)))  # noqa: PTH207
    paths = [path for path in found if path.is_file() and not path.name.endswith(_SIDECAR)]
    if not paths:
        what = "no file matches this pattern" if glob.has_magic(source) else "no such file"
        raise InputError(f"{source}: {what}; --from takes '{SAMPLE}', a file, a folder, or a quoted pattern of files")
    return paths


def _format(path: Path) -> Format | None:
    name = path.name.lower()
    if name.endswith(_SIDECAR) or name.startswith("."):
        return None
    return next((format for suffix, format in _FORMATS.items() if name.endswith(suffix)), None)


def _known_suffixes() -> str:
    return ", ".join(f"*{suffix}" for suffix in _FORMATS)


def _posts_file(path: Path) -> PostsFile:
    format = _format(path)
    if format is None:
        raise InputError(f"{path}: not a kind of file that can be read; convert it to one of {_known_suffixes()}")
    file = PostsFile(path, format, tuple(_columns(path, format)))
    for column in NEEDED:
        if column not in file.columns:
            has = textwrap.shorten(", ".join(file.columns), 200, placeholder=" ...")
            raise InputError(f"{path}: no column '{column}'; it has {has}; rename the one that holds it")
    return file


def _columns(path: Path, format: Format) -> Iterable[str]:
    import duckdb

    read = {"Parquet": _parquet_columns, "CSV": _csv_columns, "NDJSON": _ndjson_columns}[format]
    try:
        return read(path)
    # ValueError: what json and the UTF-8 decoder raise; EOFError: a gzip file that is cut off.
    except (OSError, EOFError, ValueError, csv.Error, duckdb.Error) as error:
        raise InputError(f"{path}: can't be read as {format}: {complaint(error)}") from error


def complaint(error: Exception) -> str:
    """What a reader complains of, on one line, without DuckDB's advice on options that redditgen's user can't set."""
    words = " ".join(_ADVICE.split(str(error), maxsplit=1)[0].split())
    # DuckDB says where first and what last; between them stands the record, which can be long.
    return words if len(words) < 300 else f"{words[:150]} ... {words[-150:]}"


def _parquet_columns(path: Path) -> Iterable[str]:
    import duckdb

    with duckdb.connect() as connection:
        result = connection.execute("SELECT * FROM read_parquet(?) LIMIT 0", [glob.escape(str(path))])
        return [name.lower() for name, *_ in result.description or []]


def _csv_columns(path: Path) -> Iterable[str]:
    with _open_text(path) as file:
        header = next(csv.reader(file), [])
    if not header:
        raise InputError(f"{path}: empty: no header line; the first line must name the columns subreddit and title")
    return [name.strip().lower() for name in header]


def _ndjson_columns(path: Path) -> Iterable[str]:
    keys: dict[str, None] = {}
    with _open_text(path) as file:
        for number, line in enumerate(itertools.islice(file, _LINES_LOOKED_AT), start=1):
            keys |= dict.fromkeys(_keys(line, f"{path}: line {number}"))
    if not keys:
        raise InputError(f"{path}: empty: no posts; NDJSON has one JSON object a line")
    return keys


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
