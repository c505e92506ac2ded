"""One process at a time on a folder, by a lock that the system lets go when its holder ends, however that happens."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redditgen.errors import RedditgenError

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
                raise RedditgenError(f"{folder}: another redditgen is {doing}; wait until it ends") from error
            _log.info("%s: another redditgen is %s; waiting until it is done", folder, doing)
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:
            _log.info("%s: can't be locked; let only one redditgen write to it at a time", folder)
        yield
    finally:
        os.close(lock)
