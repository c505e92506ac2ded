"""Finds the files that ship with redditgen: SQL queries, word lists, the mini model, sample posts.

In an installed wheel they are inside the package; in a checkout, at the top of the repository.
"""

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
_CHECKOUT = _PACKAGE.parents[1]


def path(name: str) -> Path:
    """Return the path of a bundled file or folder such as `sql/titles.sql`, whether or not it exists."""
    installed = _PACKAGE / "bundled" / name
    return installed if installed.exists() else _CHECKOUT / name
