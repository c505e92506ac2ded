"""The query: its SQL text, the same for every source, and its parameters from the settings."""

from pathlib import Path

from redditgen import bundled
from redditgen.errors import InputError, UsageError
from redditgen.settings import FetchSettings

# The table that the SQL text reads; a source that has no such table puts its own posts in its place.
TABLE = "fh-bigquery.reddit_posts.2019_08"


def text() -> str:
    return bundled.path("sql/titles.sql").read_text(encoding="utf8")


def parameters(settings: FetchSettings) -> dict[str, int | bool | list[str]]:
    """What stands behind the query's @names."""
    return {
        "min_score": settings.min_score,
        "top_subreddits": settings.top_subreddits,
        "per_subreddit": settings.per_subreddit,
        "block": blocked(settings.block),
        "sfw": settings.sfw,
    }


def blocked(block: str) -> list[str]:
    """The lower-case names of --block: names between commas, or a file with a name a line.

    Raises UsageError where a name can only be a file that is not there, InputError where the file can't be read.
    """
    path = Path(block).expanduser()
    lines = _lines(path) if path.is_file() else block.split(",")
    names = [_name(line) for line in lines if line.strip()]
    for name in names:
        if "/" in name or Path(name).suffix not in ("", ".com"):  # r/reddit.com is a subreddit
            raise UsageError(f"--block: {name}: neither a subreddit's name nor a file that is there")
    return names


def _name(written: str) -> str:
    return written.strip().lower().removeprefix("/").removeprefix("r/")


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: can't be read as a list of subreddits: {error}") from error
