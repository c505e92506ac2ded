"""Atomic writing: an output appears under its name complete, or not at all.

An output is written under a temporary name in the same folder, flushed to the disk with fsync, and renamed. So neither
a killed process nor a power cut leaves an incomplete file under the output's name. The temporary name holds an
identifier of the machine and the process number, `.NAME.MACHINE.PROCESS.tmp`, by which later processes recognize and
delete the temporary files of processes that were killed.
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
"""The part of a temporary name that identifies its writer: the machine and the process number."""

_WEEK = 7 * 86_400  # seconds


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Raise OutputExists if the output exists and may not be replaced, or is a folder. To be called before any work."""
    if path.is_dir():
        raise OutputExists(f"{path}: is a folder; give a file name with --out")
    if path.exists() and not overwrite:
        raise OutputExists(f"{path}: already exists; pass --overwrite to replace it, or --out for another name")


def refuse_unwritable(path: Path) -> None:
    """Raise InputError where the folder of an output can't be created or written to. To be called before any work."""
    folder = next(folder for folder in path.absolute().parents if folder.exists())
    if not folder.is_dir():
        raise InputError(f"{path}: can't be written: {folder} is no folder; give another name with --out")
    if not os.access(folder, os.W_OK):
        raise InputError(f"{path}: can't be written: {folder} may not be written to; give another folder with --out")


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Convert an OSError in the block to an InputError that says that `path` can't be written."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: can't be written: {error.strerror or error}") from error


def make_folder(path: Path) -> None:
    """Create a folder and its parents where they are missing. Raises InputError where they can't be created."""
    with write_errors(path):
        path.mkdir(parents=True, exist_ok=True)


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`; rename the file or folder written there to `path` when the block ends.

    If the block fails, deletes it instead. Creates the parent folder where it is missing, and first deletes temporary
    files that killed processes left next to `path`. Raises InputError where the folder can't be written to.
    """
    temporary = temporary_name(path)
    try:
        with write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            for leftover in leftover_temporaries(path):
                _delete(leftover)
            yield temporary
            for part in (*temporary.rglob("*"), temporary):
                sync_to_disk(part)
            temporary.replace(path)
            sync_to_disk(path.parent)
    finally:
        _delete(temporary)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Create a temporary folder next to `path` and yield it; rename it to `path` when the block ends.

    `path` must not exist. If the block fails, deletes the temporary folder instead.
    """
    with atomic_write(path) as temporary:
        temporary.mkdir()
        yield temporary


def temporary_name(path: Path, ending: str = "tmp") -> Path:
    """Return a path next to `path` that no other process uses, also on other machines that share the folder."""
    return path.with_name(f".{path.name}.{_machine_id()}.{os.getpid()}.{ending}")


def leftover_temporaries(path: Path, ending: str = "tmp") -> list[Path]:
    """Return the temporary files and folders of `path` whose processes have ended.

    Processes of other machines that share the folder can't be looked up: their files count once they have not been
    modified for a week.
    """
    leftovers = []
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.{ending}"):
        writer = re.fullmatch(WRITER_PATTERN, leftover.name[len(path.name) + 2 : -len(ending) - 1])
        if writer and (_has_ended(int(writer[2])) if writer[1] == _machine_id() else _is_week_old(leftover)):
            leftovers.append(leftover)
    return leftovers


def _machine_id() -> str:
    """Return eight hexadecimal digits that identify the machine, and on Linux the container, of this process.

    Process numbers are unique within them.
    """
    pid_namespace = ""
    with contextlib.suppress(OSError):
        pid_namespace = str(Path("/proc/self/ns/pid").readlink())
    return hashlib.sha256(f"{platform.node()} {pid_namespace}".encode()).hexdigest()[:8]


def _has_ended(process: int) -> bool:
    import psutil

    # In a container, the next process often has the number of the killed one. So a file under this process's own number
    # is a leftover too.
    return process == os.getpid() or not psutil.pid_exists(process)


def _is_week_old(leftover: Path) -> bool:
    try:
        return time.time() - max(part.stat().st_mtime for part in (leftover, *leftover.rglob("*"))) > _WEEK
    except FileNotFoundError:  # its process has just renamed or deleted it
        return False


def _delete(path: Path) -> None:
    """Delete a file or a folder if it exists; ignores errors."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):
        path.unlink()


def sync_to_disk(path: Path) -> None:
    """Flush a file's content, or a folder's list of names, to the disk. Raises OSError where that fails."""
    if os.name == "nt":  # Windows can't open a folder
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # errors of file systems without fsync
            raise
    finally:
        os.close(handle)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal. Raises InputError where the file can't be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(
            f"{path}: can't be read: {error.strerror or error}; check the path and who may use it"
        ) from error
