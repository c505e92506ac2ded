"""The local files that --from names: which, and what of each is which column."""

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
_DUMP = ".zst"
_SIDECAR = ".meta.json"

_MONTH = re.compile(r"(?<![0-9])([0-9]{4})[_-](0[1-9]|1[0-2])(?![0-9])")


@dataclass(frozen=True)
class PostsFile:
    """A file of posts, and which of its columns is which of redditgen's."""

    path: Path
    format: Format
    columns: Columns
    names: Mapping[str, str]

    @property
    def table(self) -> str:
        """The name of its table: the month in the file's name, as 2019_08, or else the name without suffix."""
        if self.path == bundled.path(_SAMPLE_FILE):
            return "2019_08"  # of which the sample's posts are dated
        if month := _month(self.path):
            return month
        return re.sub(r"[^\w -]", "_", self.path.name[: -len(_suffix(self.path) or "")])

    def source(self, column: str) -> tuple[str, str] | None:
        """The file's own name of a column, with its type in DuckDB; None if it is not there."""
        name = self.names.get(column, column)
        if column not in self.names and name in self.names.values():
            return None
        return next(((name, type) for there, type in self.columns if there == name), None)


def parse_mapping(written: Sequence[str]) -> dict[str, str]:
    """What --map says: redditgen's names of columns to the files' own; raises UsageError where it says nothing."""
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
    """Every file behind the sources, each once, in the order given; with `months`, those named for one of them.

    A monthly dump is imported first, beside itself or to `cache`.

    Raises InputError if a source has none, or a file is not of a known format or lacks a column that must be there.
    """
    found = itertools.chain.from_iterable(_paths(source) for source in sources)
    # Not resolve(): two links to one file are two months.
    paths = list({path.absolute(): path for path in found}.values())
    chosen = _of_months(paths, *months) if months else paths
    if names and (dumps := [path for path in chosen if _is_dump(path)]):
        raise UsageError(f"--map: {dumps[0]} is a dump, whose columns are Reddit's own; leave --map out for it")
    imported = (_imported(path, cache) for path in chosen)
    # A folder holds a dump and what was imported of it.
    return [
        _posts_file(path, names or {}, absent) for path, absent in {path: absent for path, absent in imported}.items()
    ]


def _is_dump(path: Path) -> bool:
    return path.name.lower().endswith(_DUMP)


def _imported(path: Path, cache: Path | None) -> tuple[Path, tuple[str, ...]]:
    """A file that can be read as it is, and the columns in which it has nothing."""
    if not _is_dump(path):
        return path, ()
    from redditgen.fetch.dumps.import_dump import import_dump

    imported = import_dump(path, cache)
    return imported.path.absolute(), imported.absent


def _of_months(paths: Sequence[Path], first: str, last: str) -> list[Path]:
    of_months = [path for path in paths if first <= (_month(path) or "") <= last]
    if not of_months:
        there = sorted(filter(None, map(_month, paths)))
        has = f"there are {there[0]} to {there[-1]}" if there else "names like RS_2019-08.parquet or 2019_08.csv say it"
        raise InputError(f"{paths[0]}: no file of the months {first} to {last}; {has}; correct --months or --from")
    return of_months


def _month(path: Path) -> str | None:
    found = _MONTH.search(path.name)
    return f"{found[1]}_{found[2]}" if found else None


def _paths(source: str) -> list[Path]:
    if source == SAMPLE:
        return [_sample()]
    path = user_folders.expand_home(Path(source))
    if path.is_dir():
        return _in_folder(path)
    return [path] if path.exists() else _matches(source, path)


def _sample() -> Path:
    path = bundled.path(_SAMPLE_FILE)
    if not path.exists():
        raise MissingError(f"{path}: the sample posts are not there; scripts/make-sample makes them")
    return path


def _in_folder(folder: Path) -> list[Path]:
    paths = [path for path in sorted(folder.iterdir()) if path.is_file() and _suffix(path)]
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


def _suffix(path: Path) -> str | None:
    name = path.name.lower()
    if name.endswith(_SIDECAR) or name.startswith("."):
        return None
    return next((suffix for suffix in (*_FORMATS, _DUMP) if name.endswith(suffix)), None)


def _known_suffixes() -> str:
    return ", ".join(f"*{suffix}" for suffix in (*_FORMATS, _DUMP))


def _posts_file(path: Path, names: Mapping[str, str], absent: tuple[str, ...] = ()) -> PostsFile:
    suffix = _suffix(path)
    if suffix is None:
        raise InputError(f"{path}: not a kind of file that can be read; convert it to one of {_known_suffixes()}")
    format = _FORMATS[suffix]
    columns = [(name, type) for name, type in headers.read_columns(path, format) if name not in absent]
    file = PostsFile(path, format, columns, dict(_own_names(names, format)))
    for column in dict.fromkeys((*REQUIRED_COLUMNS, *names)):
        if not file.source(column):
            raise InputError(_lacking(file, column))
    return file


def _own_names(names: Mapping[str, str], format: Format) -> Iterator[tuple[str, str]]:
    for ours, theirs in names.items():
        yield ours, theirs if format == "NDJSON" else theirs.lower()


def _lacking(file: PostsFile, column: str) -> str:
    has = textwrap.shorten(", ".join(name for name, _ in file.columns), 200, placeholder=" ...")
    if column in file.names:
        return f"{file.path}: no column '{file.names[column]}', which --map {column}= names; it has {has}"
    return f"{file.path}: no column '{column}'; it has {has}; name the one that holds it with --map {column}=COLUMN"
