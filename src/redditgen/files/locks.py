"""Locks on folders, so that only one process at a time writes to them.

The locks are those of flock(2): the system releases a lock when the process that holds it ends, for whatever reason.
Windows has no such locks.
"""

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from redditgen.errors import RedditgenError
from redditgen.files.atomic import write_errors

_LOCKS = Path("/proc/locks")  # Linux's list of locks with the processes that hold them

_log = logging.getLogger(__name__)


@contextmanager
def exclusive_lock(folder: Path, doing: str, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock of an existing folder during the block.

    If another process of redditgen holds it, waits for it where `wait` is true, or else raises RedditgenError. `doing`
    says for messages what that process does, for example "importing to it". Locks nothing on Windows.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    try:
        lock = os.open(folder, os.O_RDONLY)
    except FileNotFoundError as error:
        raise _locked_error(folder, "another redditgen", doing) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if not wait:
                raise _locked_error(folder, _describe_holder(lock), doing) from error
            _log.info("%s: %s is %s; waiting until it is done", folder, _describe_holder(lock), doing)
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:
            _log.info("%s: can't be locked; let only one redditgen write to it at a time", folder)
        if not _is_at_path(lock, folder):  # deleted by its former holder before the lock was acquired
            raise _locked_error(folder, "another redditgen", doing)
        yield
    finally:
        os.close(lock)


@contextmanager
def locked_output(output: Path) -> Iterator[Path]:
    """Lock an output during the block, by the lock of a folder next to it; yields that folder.

    Creates the folder and its parents. At the end, those that were created and are empty are deleted. Raises
    RedditgenError where another process is writing the output, InputError where the folder can't be created.
    """
    folder = _lock_folder(output)
    missing = [parent for parent in folder.parents if not parent.exists()]
    with write_errors(output):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with exclusive_lock(folder, f"writing {output}"):
            try:
                yield folder
            finally:
                _delete_empty(folder)
    finally:
        _delete_empty(*missing)


def delete_leftover_lock_folder(output: Path) -> None:
    """Delete the lock folder of a complete output, which a process that was killed may have left; ignores errors."""
    folder = _lock_folder(output)
    with suppress(OSError, RedditgenError), exclusive_lock(folder, f"writing {output}"):
        shutil.rmtree(folder)


def _lock_folder(output: Path) -> Path:
    return output.with_name(f".{output.name}.partial")


def _delete_empty(*folders: Path) -> None:
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def _is_at_path(lock: int, folder: Path) -> bool:
    """Return whether an open folder is still the one at this path."""
    try:
        return os.path.samestat(os.fstat(lock), folder.stat())
    except FileNotFoundError:
        return False


def _locked_error(folder: Path, holder: str, doing: str) -> RedditgenError:
    return RedditgenError(f"{folder}: {holder} is {doing}; wait until it ends")


def _describe_holder(lock: int) -> str:
    """Return a name for the holder of an open folder's lock, with its process number where Linux's /proc/locks has it.

    A line of /proc/locks (proc(5)), with process number and device:device:inode:

        1: FLOCK  ADVISORY  WRITE 4711 08:01:131 0 EOF
    """
    status = os.fstat(lock)
    inode = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    try:
        locks = [line.split() for line in _LOCKS.read_text(encoding="utf8").splitlines()]
    except OSError:
        locks = []
    holders = [words[4] for words in locks if words[1] == "FLOCK" and words[5] == inode and words[4] != "-1"]
    return f"another redditgen (process {holders[0]})" if holders else "another redditgen"
