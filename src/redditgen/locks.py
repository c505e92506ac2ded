"""One process at a time on a folder, by a lock that the system lets go when its holder ends, however that happens."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redditgen.errors import RedditgenError

_LOCKS = Path("/proc/locks")

_log = logging.getLogger(__name__)


@contextmanager
def alone(folder: Path, doing: str, *, wait: bool = False) -> Iterator[None]:
    """Keep other processes of redditgen out of an existing folder, or wait until they are out.

    Raises RedditgenError, which says what the other is `doing`, where it is not to wait. Windows has no such lock.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    lock = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if not wait:
                raise RedditgenError(f"{folder}: {_holder(lock)} is {doing}; wait until it ends") from error
            _log.info("%s: %s is %s; waiting until it is done", folder, _holder(lock), doing)
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:
            _log.info("%s: can't be locked; let only one redditgen write to it at a time", folder)
        yield
    finally:
        os.close(lock)


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
