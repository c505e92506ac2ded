"""Imports monthly dumps of posts, such as RS_2019-08.zst, to Parquet files, which the query then reads.

A dump is NDJSON, one post a line, compressed with a zstd window of up to 2 GiB, which neither DuckDB nor pyarrow reads.
So zstandard decompresses it, DuckDB parses some megabytes of lines at a time, and pyarrow writes the Parquet file. The
same dump always results in the same bytes. The Parquet file's sidecar identifies its dump, so that a dump is imported
only once. An import takes the memory of the zstd window and about 500 MB.
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

_FORMAT = 1  # version of the Parquet file's form; after a change, every dump is imported again

_MEMORY_BESIDES_WINDOW = 500 * MB  # bytes of memory, for lines and rows

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImportedDump:
    """A dump as a Parquet file with the columns DUMP_COLUMN_TYPES; in its `absent` columns no post has a value."""

    path: Path
    counts: DumpCounts
    absent: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ImportSettings:
    dump: Path
    cache: Path | None = None


def import_dump(dump: Path, cache: Path | None = None) -> ImportedDump:
    """Import a dump to a Parquet file in its folder, or in the folder `cache`, unless that was done before.

    Raises InputError, and leaves no file, where the dump can't be read to its end or nothing can be written;
    OutputExists where another file is at the Parquet file's path; Interrupted at Ctrl-C.
    """
    settings = ImportSettings(dump=dump, cache=cache)
    parquet = (cache or dump.parent) / dump.with_suffix(".parquet").name
    try:
        if existing := _find_import(dump, parquet):
            return existing
        window = zstd_lines.window_size(dump)
        make_folder(parquet.parent)
        # One import at a time, since each can take gigabytes of memory.
        with exclusive_lock(parquet.parent, "importing to it", wait=True):
            return _find_import(dump, parquet) or _import(settings, parquet, window)
    except KeyboardInterrupt as error:
        raise Interrupted(f"{dump}: import interrupted, so nothing is kept; the same command starts anew") from error
    except MemoryError as error:
        raise InputError(f"{dump}: not enough memory; close other programs and run the same command") from error
    except OSError as error:
        raise InputError(f"{error.filename or dump}: {error.strerror or error}; the dump can't be imported") from error


def _import(settings: ImportSettings, parquet: Path, window: int) -> ImportedDump:
    dump = settings.dump
    _refuse_other_file(dump, parquet)
    if not os.access(parquet.parent, os.W_OK):
        raise InputError(f"{parquet.parent}: can't be written to; name a folder for imported dumps with --cache")
    _delete_temporary_files(parquet)
    _announce(dump, parquet, window + _MEMORY_BESIDES_WINDOW)
    fingerprint = _dump_fingerprint(dump)
    with atomic_write(parquet) as temporary:
        imported = ImportedDump(parquet, _write_parquet(dump, temporary), _empty_columns(temporary))
        # Written before the Parquet file has its name: without a sidecar, it would be taken for a file of the user's.
        write_sidecar(
            parquet,
            settings,
            inputs=[],
            format=_FORMAT,
            made_of=fingerprint,
            parquet=_fingerprint(temporary),
            counts=asdict(imported.counts),
            absent=imported.absent,
        )
    _report(dump, imported)
    return imported


def _write_parquet(dump: Path, path: Path) -> DumpCounts:
    """Write the dump's posts to a Parquet file; raises InputError where the dump has no posts or can't be read."""
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
            for group, group_counts in posts.merge_row_groups(tables):
                writer.write_table(group, row_group_size=max(1, group.num_rows))
                counts += group_counts
        except duckdb.Error as error:
            raise InputError(f"{dump}: can't be parsed: {short_message(error)}") from error
    if not counts.posts:
        raise InputError(
            f"{dump}: no posts: {counts.broken} broken lines, {counts.incomplete} without subreddit or title; "
            "dumps of posts have names like RS_2019-08.zst (RC_ are comments)"
        )
    return counts


def _empty_columns(parquet: Path) -> tuple[str, ...]:
    import pyarrow.parquet as pq

    metadata = pq.read_metadata(parquet)
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    return tuple(
        name
        for index, name in enumerate(DUMP_COLUMN_TYPES)
        if all(group.column(index).statistics.null_count == group.num_rows for group in groups)
    )


# Earlier imports


def _find_import(dump: Path, parquet: Path) -> ImportedDump | None:
    """Return the earlier import of this very dump, if its Parquet file exists and is complete."""
    sidecar = _read_sidecar(parquet)
    if not parquet.is_file() or sidecar.get("format") != _FORMAT:
        return None
    if sidecar.get("made_of") != _dump_fingerprint(dump) or sidecar.get("parquet") != _fingerprint(parquet):
        return None
    _log.info("%s: imported before, to %s", dump, parquet)
    return ImportedDump(parquet, DumpCounts(**sidecar["counts"]), tuple(sidecar["absent"]))


def _read_sidecar(parquet: Path) -> dict[str, Any]:
    try:
        content = json.loads(sidecar_path(parquet).read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _dump_fingerprint(dump: Path) -> dict[str, Any]:
    return _fingerprint(dump) | {"modified": dump.stat().st_mtime_ns}


def _fingerprint(path: Path) -> dict[str, Any]:
    """Return the size of a file and the SHA-256 of its first and last megabyte, which identify it without a full read.

    The footer of a Parquet file and the checksum of zstd are at the end.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        hasher = hashlib.sha256(file.read(MB))
        file.seek(max(0, size - MB))
        hasher.update(file.read(MB))
    return {"bytes": size, "sha256_of_ends": hasher.hexdigest()}


def _refuse_other_file(dump: Path, parquet: Path) -> None:
    """Raise OutputExists where the Parquet file's path holds anything but an earlier import of this dump."""
    if not parquet.exists():
        return
    sidecar = _read_sidecar(parquet)
    if "made_of" not in sidecar:
        raise OutputExists(
            f"{parquet}: is there and was not imported from {dump}; move it away, or name another folder with --cache"
        )
    other = Path(sidecar["settings"]["dump"])
    if other.exists() and not other.samefile(dump) and not _fingerprint(dump).items() <= sidecar["made_of"].items():
        raise OutputExists(f"{parquet}: was imported from {other}; name another folder for {dump} with --cache")


def _delete_temporary_files(parquet: Path) -> None:
    """Delete the temporary files of killed imports, which redditgen.files.atomic names."""
    for path in parquet.parent.iterdir():
        if path.name.startswith(f".{parquet.name}.") and path.name.endswith(".tmp"):
            path.unlink(missing_ok=True)


# Messages


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
