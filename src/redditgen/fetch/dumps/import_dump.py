"""Monthly dumps of posts, such as RS_2019-08.zst: imported once to a Parquet file, which the query then reads.

A dump is NDJSON, a post a line, packed with a zstd window of up to 2 GiB, which neither DuckDB nor pyarrow reads. So
zstandard unpacks it, DuckDB parses some megabytes of lines at a time, and pyarrow writes. The same dump gives the same
bytes. The Parquet's sidecar says which dump it was made of.
"""

import contextlib
import hashlib
import json
import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from redditgen.errors import InputError, Interrupted, OutputExists
from redditgen.fetch.dumps import posts, zstd_lines
from redditgen.fetch.dumps.posts import DumpCounts
from redditgen.fetch.dumps.zstd_lines import MB
from redditgen.fetch.sql.columns import DUMP_COLUMN_TYPES
from redditgen.fetch.sql.duckdb_connection import short_message
from redditgen.files.atomic import atomic_write, make_folder
from redditgen.files.locks import exclusive_lock
from redditgen.files.sidecar import sidecar_path, write_sidecar
from redditgen.runtime.progress import Progress

_FORMAT = 1  # of the Parquet file; a change of it makes every dump be imported anew

_BESIDE_WINDOW = 500 * MB  # of memory, for lines and rows

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImportedDump:
    """A dump as a Parquet file of `dump_posts.TYPES`; in its `absent` columns no post has a value."""

    path: Path
    counts: DumpCounts
    absent: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ImportSettings:
    dump: Path
    cache: Path | None = None


def import_dump(dump: Path, cache: Path | None = None) -> ImportedDump:
    """The dump as Parquet, beside it or in the folder `cache`; made only if it was not made of this very dump before.

    Raises InputError, and leaves nothing behind, where the dump can't be read to its end or nothing can be written.
    """
    settings = ImportSettings(dump=dump, cache=cache)
    parquet = (cache or dump.parent) / dump.with_suffix(".parquet").name
    try:
        if made := _made_before(dump, parquet):
            return made
        window = zstd_lines.window_size(dump)
        make_folder(parquet.parent)
        with exclusive_lock(parquet.parent, "importing to it", wait=True):  # an import takes gigabytes
            return _made_before(dump, parquet) or _make(settings, parquet, window)
    except KeyboardInterrupt as error:
        raise Interrupted(f"{dump}: import interrupted, so nothing is kept; the same command starts anew") from error
    except MemoryError as error:
        raise InputError(f"{dump}: not enough memory; close other programs and run the same command") from error
    except OSError as error:
        raise InputError(f"{error.filename or dump}: {error.strerror or error}; the dump can't be imported") from error


def _make(settings: ImportSettings, parquet: Path, window: int) -> ImportedDump:
    dump = settings.dump
    _refuse_foreign(dump, parquet)
    if not os.access(parquet.parent, os.W_OK):
        raise InputError(f"{parquet.parent}: can't be written to; name a folder for imported dumps with --cache")
    _delete_remains(parquet)
    _announce(dump, parquet, window + _BESIDE_WINDOW)
    made_of = _fingerprint(dump)
    with atomic_write(parquet) as temporary:
        imported = ImportedDump(parquet, _write(dump, temporary), _absent(temporary))
        # Before the Parquet has its name: one without a sidecar would be taken for somebody else's.
        write_sidecar(
            parquet,
            settings,
            inputs=[],
            format=_FORMAT,
            made_of=made_of,
            parquet=_ends(temporary),
            counts=asdict(imported.counts),
            absent=imported.absent,
        )
    _report(dump, imported)
    return imported


def _write(dump: Path, path: Path) -> DumpCounts:
    """Write the Parquet file; raises InputError if there is no post in the dump."""
    import duckdb
    import pyarrow.parquet as pq

    counts = DumpCounts()
    with (
        Progress(f"import {dump.name}", unit="MB", total=-(-dump.stat().st_size // MB)) as progress,
        path.open("wb") as file,
        pq.ParquetWriter(file, posts.arrow_schema(), compression="zstd") as writer,
        contextlib.closing(posts.parse_blocks(zstd_lines.read_blocks(dump, progress))) as tables,
    ):
        try:
            for group, of_group in posts.merge_row_groups(tables):
                writer.write_table(group, row_group_size=max(1, group.num_rows))
                counts += of_group
        except duckdb.Error as error:
            raise InputError(f"{dump}: can't be parsed: {short_message(error)}") from error
    if not counts.posts:
        raise InputError(
            f"{dump}: no posts: {counts.broken} broken lines, {counts.incomplete} without subreddit or title; "
            "dumps of posts have names like RS_2019-08.zst (RC_ are comments)"
        )
    return counts


def _absent(parquet: Path) -> tuple[str, ...]:
    import pyarrow.parquet as pq

    metadata = pq.read_metadata(parquet)
    groups = [metadata.row_group(place) for place in range(metadata.num_row_groups)]
    return tuple(
        name
        for place, name in enumerate(DUMP_COLUMN_TYPES)
        if all(group.column(place).statistics.null_count == group.num_rows for group in groups)
    )


# What was made before


def _made_before(dump: Path, parquet: Path) -> ImportedDump | None:
    """The Parquet file, if it is there, whole, and made of this very dump."""
    said = _sidecar(parquet)
    if not parquet.is_file() or said.get("format") != _FORMAT:
        return None
    if said.get("made_of") != _fingerprint(dump) or said.get("parquet") != _ends(parquet):
        return None
    _log.info("%s: imported before, to %s", dump, parquet)
    return ImportedDump(parquet, DumpCounts(**said["counts"]), tuple(said["absent"]))


def _sidecar(parquet: Path) -> dict[str, Any]:
    try:
        content = json.loads(sidecar_path(parquet).read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _fingerprint(dump: Path) -> dict[str, Any]:
    return _ends(dump) | {"modified": dump.stat().st_mtime_ns}


def _ends(path: Path) -> dict[str, Any]:
    """What tells a file from others without reading it all: a Parquet's footer and zstd's checksum are at the end."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        ends = hashlib.sha256(file.read(MB))
        file.seek(max(0, size - MB))
        ends.update(file.read(MB))
    return {"bytes": size, "sha256_of_ends": ends.hexdigest()}


def _refuse_foreign(dump: Path, parquet: Path) -> None:
    """Raise OutputExists where something else is in the place than an earlier import of this dump."""
    if not parquet.exists():
        return
    said = _sidecar(parquet)
    if "made_of" not in said:
        raise OutputExists(
            f"{parquet}: is there and was not imported from {dump}; move it away, or name another folder with --cache"
        )
    other = Path(said["settings"]["dump"])
    if other.exists() and not other.samefile(dump) and not _ends(dump).items() <= said["made_of"].items():
        raise OutputExists(f"{parquet}: was imported from {other}; name another folder for {dump} with --cache")


def _delete_remains(parquet: Path) -> None:
    """Of imports that were killed: the temporary files of redditgen.files.atomic."""
    for path in parquet.parent.iterdir():
        if path.name.startswith(f".{parquet.name}.") and path.name.endswith(".tmp"):
            path.unlink(missing_ok=True)


# What is said


def _announce(dump: Path, parquet: Path, needed: int) -> None:
    import psutil

    free = psutil.virtual_memory().available
    _log.info("%s: importing once to %s; takes up to %.1f GB of memory", dump, parquet, needed / 1e9)
    if needed > free:
        _log.warning("%s: only %.1f GB of memory are free; close other programs if it fails", dump, free / 1e9)


def _report(dump: Path, imported: ImportedDump) -> None:
    counts = imported.counts
    _log.info("%s: %d posts imported to %s", dump, counts.posts, imported.path)
    if counts.broken or counts.incomplete:
        _log.warning(
            "%s: left out %d broken lines and %d without subreddit or title", dump, counts.broken, counts.incomplete
        )
