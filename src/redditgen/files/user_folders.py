"""Places below the user's home folder, which a job of cron or of a container may not have."""

from pathlib import Path

import platformdirs

from redditgen.errors import InputError


def expand_home(path: Path) -> Path:
    """A path with the folder that `~` stands for; raises InputError where nobody knows it."""
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise InputError(f"{path}: no such home folder is known; set HOME, or give the path in full") from error


def cache_folder() -> Path:
    """Our folder in the user's for caches, which need not be there."""
    try:
        return platformdirs.user_cache_path("redditgen", appauthor=False)
    except RuntimeError as error:
        raise InputError("no home folder is known, nor one for caches; set HOME or XDG_CACHE_HOME") from error
