"""Finds the local files of posts that --from names, and which of their columns are redditgen's.

A source is the sample, a file, a folder or a quoted glob pattern. Dumps are imported to Parquet first.
"""

import glob
import itertools
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from redditgen.errors import InputError, MissingError, UsageError
from redditgen.fetch.local import headers
from redditgen.fetch.local.headers import Columns, Format
from redditgen.fetch.sql.columns import COLUMN_TYPES, REQUIRED_COLUMNS
from redditgen.files import bundled, user_folders

SAMPLE = "sample"
_SAMPLE_FILE = "data/sample_posts.parquet"

_FORMATS: dict[str, Format] = {
    ".parquet": "Parquet",
    ".csv": "CSV",
    ".csv.gz": "CSV",
    **dict.fromkeys((".ndjson", ".jsonl", ".json", ".ndjson.gz", ".jsonl.gz", ".json.gz"), "NDJSON"),
}
_DUMP_SUFFIX = ".zst"
_SIDECAR_SUFFIX = ".meta.json"

_MONTH_IN_NAME = re.compile(r"(?<![0-9])([0-9]{4})[_-](0[1-9]|1[0-2])(?![0-9])")


@dataclass(frozen=True)
class PostsFile:
    """A file of posts: its path, format, columns with DuckDB's types, and the column names that --map gives."""

    path: Path
    format: Format
    columns: Columns
    names: Mapping[str, str]

    @property
    def table(self) -> str:
        """The name of the file's table: the month in the file's name, as 2019_08, or the name without its suffix."""
        if self.path == bundled.path(_SAMPLE_FILE):
            return "2019_08"  # the month of the dates of the sample's posts
        if month := _month_in_name(self.path):
            return month
        return re.sub(r"[^\w -]", "_", self.path.name[: -len(_suffix(self.path) or "")])

    def source(self, column: str) -> tuple[str, str] | None:
        """Return the file's own name and DuckDB type of one of redditgen's columns, or None where the file lacks it."""
        name = self.names.get(column, column)
        if column not in self.names and name in self.names.values():
            return None
        return next(((name, type) for column_name, type in self.columns if column_name == name), None)


def parse_mapping(written: Sequence[str]) -> dict[str, str]:
    """Parse the values of --map, such as title=headline, to a mapping from redditgen's column names to the files'.

    Raises UsageError where a value is malformed, redditgen has no such column, or a column is named twice.
    """
    names: dict[str, str] = {}
    for text in written:
        ours, _, theirs = (part.strip() for part in text.partition("="))
        if ours not in COLUMN_TYPES or not theirs:
            raise UsageError(
                f"--map must be like title=headline, not {text!r}; before the = stands one of {', '.join(COLUMN_TYPES)}"
            )
        if ours in names or theirs in names.values():
            raise UsageError(f"--map {text}: names a column a second time; leave one of the two out")
        names[ours] = theirs
    return names


def find_posts_files(
    sources: Sequence[str],
    *,
    names: Mapping[str, str] | None = None,
    months: tuple[str, str] | None = None,
    cache: Path | None = None,
) -> list[PostsFile]:
    """Return the files of all sources, each once, in the given order; with `months`, only those named for one of them.

    `names` maps redditgen's column names to the files'; `months` are the first and the last month, as 2019_08.
    Monthly dumps are imported first, to the folder `cache` or, by default, to the dump's folder.

    Raises InputError where a source has no files, or a file is of no known format or lacks a required column;
    UsageError where `names` are given for a dump.
    """
    listed = itertools.chain.from_iterable(_source_paths(source) for source in sources)
    # absolute(), not resolve(): two links to one file can be named for two months.
    paths = list({path.absolute(): path for path in listed}.values())
    chosen = _select_months(paths, *months) if months else paths
    if names and (dumps := [path for path in chosen if _is_dump(path)]):
        raise UsageError(f"--map: {dumps[0]} is a dump, whose columns are Reddit's own; leave --map out for it")
    imported = (_import_if_dump(path, cache) for path in chosen)
    # The dictionary removes repeated paths: a folder can hold both a dump and the file that it was imported to.
    return [
        _inspect_file(path, names or {}, absent) for path, absent in {path: absent for path, absent in imported}.items()
    ]


def _is_dump(path: Path) -> bool:
    return path.name.lower().endswith(_DUMP_SUFFIX)


def _import_if_dump(path: Path, cache: Path | None) -> tuple[Path, tuple[str, ...]]:
    """Import `path` where it is a dump; return the file to read, and the columns without any value in it."""
    if not _is_dump(path):
        return path, ()
    from redditgen.fetch.dumps.import_dump import import_dump

    imported = import_dump(path, cache)
    return imported.path.absolute(), imported.absent


def _select_months(paths: Sequence[Path], first: str, last: str) -> list[Path]:
    selected = [path for path in paths if first <= (_month_in_name(path) or "") <= last]
    if not selected:
        named = sorted(filter(None, map(_month_in_name, paths)))
        has = f"there are {named[0]} to {named[-1]}" if named else "names like RS_2019-08.parquet or 2019_08.csv say it"
        raise InputError(f"{paths[0]}: no file of the months {first} to {last}; {has}; correct --months or --from")
    return selected


def _month_in_name(path: Path) -> str | None:
    match = _MONTH_IN_NAME.search(path.name)
    return f"{match[1]}_{match[2]}" if match else None


def _source_paths(source: str) -> list[Path]:
    if source == SAMPLE:
        return [_sample_path()]
    path = user_folders.expand_home(Path(source))
    if path.is_dir():
        return _paths_in_folder(path)
    return [path] if path.exists() else _paths_of_pattern(source, path)


def _sample_path() -> Path:
    path = bundled.path(_SAMPLE_FILE)
    if not path.exists():
        raise MissingError(f"{path}: the sample posts are not there; scripts/make-sample makes them")
    return path


def _paths_in_folder(folder: Path) -> list[Path]:
    paths = [path for path in sorted(folder.iterdir()) if path.is_file() and _suffix(path)]
    if not paths:
        raise InputError(f"{folder}: no posts in this folder; looked for {_known_suffixes()}")
    return paths


def _paths_of_pattern(source: str, pattern: Path) -> list[Path]:
    # Path.glob refuses absolute patterns.
    matches = (Path(name) for name in sorted(glob.glob(str(pattern), recursive=True)))  # noqa: PTH207
    paths = [path for path in matches if path.is_file() and not path.name.endswith(_SIDECAR_SUFFIX)]
    if not paths:
        what = "no file matches this pattern" if glob.has_magic(source) else "no such file"
        raise InputError(f"{source}: {what}; --from takes '{SAMPLE}', a file, a folder, or a quoted pattern of files")
    return paths


def _suffix(path: Path) -> str | None:
    name = path.name.lower()
    if name.endswith(_SIDECAR_SUFFIX) or name.startswith("."):
        return None
    return next((suffix for suffix in (*_FORMATS, _DUMP_SUFFIX) if name.endswith(suffix)), None)


def _known_suffixes() -> str:
    return ", ".join(f"*{suffix}" for suffix in (*_FORMATS, _DUMP_SUFFIX))


def _inspect_file(path: Path, names: Mapping[str, str], absent: tuple[str, ...] = ()) -> PostsFile:
    suffix = _suffix(path)
    if suffix is None:
        raise InputError(f"{path}: not a kind of file that can be read; convert it to one of {_known_suffixes()}")
    format = _FORMATS[suffix]
    columns = [(name, type) for name, type in headers.read_columns(path, format) if name not in absent]
    file = PostsFile(path, format, columns, dict(_normalize_names(names, format)))
    for column in dict.fromkeys((*REQUIRED_COLUMNS, *names)):
        if not file.source(column):
            raise InputError(_missing_column_message(file, column))
    return file


def _normalize_names(names: Mapping[str, str], format: Format) -> Iterator[tuple[str, str]]:
    """Yield `names` with the file's names in the case in which `read_columns` returns them."""
    for ours, theirs in names.items():
        yield ours, theirs if format == "NDJSON" else theirs.lower()


def _missing_column_message(file: PostsFile, column: str) -> str:
    has = textwrap.shorten(", ".join(name for name, _ in file.columns), 200, placeholder=" ...")
    if column in file.names:
        return f"{file.path}: no column '{file.names[column]}', which --map {column}= names; it has {has}"
    return f"{file.path}: no column '{column}'; it has {has}; name the one that holds it with --map {column}=COLUMN"
