"""Finds what ships with redditgen: the SQL, the mini model, the sample posts.

In an installed wheel these lie inside the package; in a checkout, at the repository's top.
"""

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
_CHECKOUT = _PACKAGE.parents[1]


def path(name: str) -> Path:
    """Where a file or folder such as `sql/titles.sql` lies; the path need not exist."""
    installed = _PACKAGE / "bundled" / name
    return installed if installed.exists() else _CHECKOUT / name
