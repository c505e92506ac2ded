"""One process at a time on a folder, by a lock that the system lets go when its holder ends, however that happens."""

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from redditgen.errors import RedditgenError
from redditgen.files.atomic import write_errors

_LOCKS = Path("/proc/locks")

_log = logging.getLogger(__name__)


@contextmanager
def exclusive_lock(folder: Path, doing: str, *, wait: bool = False) -> Iterator[None]:
    """Keep other processes of redditgen out of an existing folder, or wait until they are out.

    Raises RedditgenError, which says what the other is `doing`, where it is not to wait. Windows has no such lock.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    try:
        lock = os.open(folder, os.O_RDONLY)
    except FileNotFoundError as error:
        raise _held(folder, "another redditgen", doing) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if not wait:
                raise _held(folder, _holder(lock), doing) from error
            _log.info("%s: %s is %s; waiting until it is done", folder, _holder(lock), doing)
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:
            _log.info("%s: can't be locked; let only one redditgen write to it at a time", folder)
        if not _is_of(lock, folder):  # deleted by a holder that was about to end
            raise _held(folder, "another redditgen", doing)
        yield
    finally:
        os.close(lock)


@contextmanager
def locked_output(output: Path) -> Iterator[Path]:
    """Keep other processes off an output, by the lock of a folder beside it, which the block is given.

    The folder is made, as are those above it, and those of them that are empty at the end go again.
    """
    folder = _beside(output)
    missing = [place for place in folder.parents if not place.exists()]
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


def delete_leftover_folder(output: Path) -> None:
    """Delete the folder beside an output that is whole, if its process was killed before it could."""
    folder = _beside(output)
    with suppress(OSError, RedditgenError), exclusive_lock(folder, f"writing {output}"):
        shutil.rmtree(folder)


def _beside(output: Path) -> Path:
    return output.with_name(f".{output.name}.partial")


def _delete_empty(*folders: Path) -> None:
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def _is_of(lock: int, folder: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(lock), folder.stat())
    except FileNotFoundError:
        return False


def _held(folder: Path, holder: str, doing: str) -> RedditgenError:
    return RedditgenError(f"{folder}: {holder} is {doing}; wait until it ends")


def _holder(lock: int) -> str:
    """Who holds the lock of an open folder, with the number of the process where the system tells, as Linux does.

    /proc/locks, proc(5):  1: FLOCK  ADVISORY  WRITE 4711 08:01:131 0 EOF
    """
    opened = os.fstat(lock)
    place = f"{os.major(opened.st_dev):02x}:{os.minor(opened.st_dev):02x}:{opened.st_ino}"
    try:
        held = [line.split() for line in _LOCKS.read_text(encoding="utf8").splitlines()]
    except OSError:
        held = []
    holders = [words[4] for words in held if words[1] == "FLOCK" and words[5] == place and words[4] != "-1"]
    return f"another redditgen (process {holders[0]})" if holders else "another redditgen"
