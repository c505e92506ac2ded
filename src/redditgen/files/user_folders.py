"""Paths below the user's home folder. Jobs of cron and processes in containers may have no home folder."""

from pathlib import Path

import platformdirs

from redditgen.errors import InputError


def expand_home(path: Path) -> Path:
    """Replace a leading `~` by the home folder. Raises InputError where the home folder is unknown."""
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise InputError(f"{path}: no such home folder is known; set HOME, or give the path in full") from error


def cache_folder() -> Path:
    """Return redditgen's folder in the user's cache folder, whether or not it exists.

    Raises InputError where the user's cache folder is unknown.
    """
    try:
        return platformdirs.user_cache_path("redditgen", appauthor=False)
    except RuntimeError as error:
        raise InputError("no home folder is known, nor one for caches; set HOME or XDG_CACHE_HOME") from error
