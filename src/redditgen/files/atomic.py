"""Outputs that appear whole or not at all.

What has appeared is on the disk, so that a power cut leaves it as a kill does.
"""

import contextlib
import errno
import glob
import hashlib
import os
import platform
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redditgen.errors import InputError, OutputExists

WRITER_PATTERN = r"([0-9a-f]{8})\.([0-9]+)"
"""In a temporary name, who writes there: the machine and the process."""

_A_WEEK = 7 * 86_400  # seconds


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Raise OutputExists before any work is done, unless the output may be replaced."""
    if path.is_dir():
        raise OutputExists(f"{path}: is a folder; give a file name with --out")
    if path.exists() and not overwrite:
        raise OutputExists(f"{path}: already exists; pass --overwrite to replace it, or --out for another name")


def refuse_unwritable(path: Path) -> None:
    """Raise InputError before any work is done where it can be seen that no file of this name can be written."""
    folder = next(folder for folder in path.absolute().parents if folder.exists())
    if not folder.is_dir():
        raise InputError(f"{path}: can't be written: {folder} is no folder; give another name with --out")
    if not os.access(folder, os.W_OK):
        raise InputError(f"{path}: can't be written: {folder} may not be written to; give another folder with --out")


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """What the system refuses in the block is that `path` can't be written, an InputError."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: can't be written: {error.strerror or error}") from error


def make_folder(path: Path) -> None:
    """Make a folder and those above it where they are not there; raises InputError where that can't be."""
    with write_errors(path):
        path.mkdir(parents=True, exist_ok=True)


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path`; what is there is renamed to `path` when the block ends, deleted if it fails.

    The folder is made if it is not there, and what killed processes left beside `path` is deleted. Raises InputError
    where it can't be written to.
    """
    temporary = temporary_name(path)
    try:
        with write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            for left in leftover_temporaries(path):
                _delete(left)
            yield temporary
            for part in (*temporary.rglob("*"), temporary):
                sync_to_disk(part)
            temporary.replace(path)
            sync_to_disk(path.parent)
    finally:
        _delete(temporary)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """The same for a folder that is not there yet."""
    with atomic_write(path) as temporary:
        temporary.mkdir()
        yield temporary


def temporary_name(path: Path, ending: str = "tmp") -> Path:
    """A name beside `path` that no other process takes, on whatever machine."""
    return path.with_name(f".{path.name}.{_machine()}.{os.getpid()}.{ending}")


def leftover_temporaries(path: Path, ending: str = "tmp") -> list[Path]:
    """What processes that are no more have left under temporary names.

    Those of another machine that shares the folder can't be asked for: theirs is what was not touched for a week.
    """
    found = []
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.{ending}"):
        named = re.fullmatch(WRITER_PATTERN, left.name[len(path.name) + 2 : -len(ending) - 1])
        if named and (_has_ended(int(named[2])) if named[1] == _machine() else _is_old(left)):
            found.append(left)
    return found


def _machine() -> str:
    """Eight hexadecimal digits for what numbers this process: the machine, and on Linux the container."""
    numbered = ""
    with contextlib.suppress(OSError):
        numbered = str(Path("/proc/self/ns/pid").readlink())
    return hashlib.sha256(f"{platform.node()} {numbered}".encode()).hexdigest()[:8]


def _has_ended(process: int) -> bool:
    import psutil

    # In a container the next process often has the number of the one that was killed.
    return process == os.getpid() or not psutil.pid_exists(process)


def _is_old(left: Path) -> bool:
    try:
        return time.time() - max(part.stat().st_mtime for part in (left, *left.rglob("*"))) > _A_WEEK
    except FileNotFoundError:  # its process is at it
        return False


def _delete(path: Path) -> None:
    """A file or a folder, as far as it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):
        path.unlink()


def sync_to_disk(path: Path) -> None:
    """Wait until a file's content, or the names in a folder, are on the disk; raises OSError where they can't be."""
    if os.name == "nt":  # where a folder can't be opened
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # those of file systems that have no such request
            raise
    finally:
        os.close(handle)


def file_sha256(path: Path) -> str:
    """Raises InputError where the file can't be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(
            f"{path}: can't be read: {error.strerror or error}; check the path and who may use it"
        ) from error
