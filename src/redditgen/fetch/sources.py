"""Opens the source of posts that --from names: BigQuery, or local files of posts.

A dump is first imported to a file, and posts from Arctic Shift are first downloaded to files.
"""

import difflib
import json
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redditgen.errors import UsageError
from redditgen.fetch.bigquery.posts import BigQueryPosts
from redditgen.fetch.local import files
from redditgen.fetch.local.posts import LocalPosts
from redditgen.fetch.sql.tables import TableChoice
from redditgen.files.sidecar import sidecar_path
from redditgen.settings import FetchSettings
from redditgen.settings.options import parse_byte_count

if TYPE_CHECKING:
    from redditgen.fetch.base import Posts

REMOTE_SOURCES = ("bigquery", "arctic-shift")
_SOURCE_NAMES = (files.SAMPLE, *REMOTE_SOURCES)
_ARCTIC_SHIFT_FOLDER = Path("data/arctic-shift")
# By the command that wrote a file, the keys of the file's sidecar that are copied to fetch's sidecar.
_ORIGIN_KEYS = {"import": ("counts",), "arcticshift": ("subreddit", "fetched", "posts", "skipped", "crowded")}
# What follows for the titles where files lack a column.
_CONSEQUENCES = {
    "score": "--min-score does not apply and titles are taken in order of id",
    "author": "the top subreddits are those with the most posts",
    "over_18": "--sfw goes by the lists of subreddits and words alone",
}

_log = logging.getLogger(__name__)


def open_posts(settings: FetchSettings) -> "Posts":
    """Return the source of posts that the settings name, to be used in a `with` block.

    Imports dumps and downloads posts from Arctic Shift first. Raises a RedditgenError where the source does not exist
    or can't be read.
    """
    if settings.source == ("bigquery",):
        return _open_bigquery(settings)
    _refuse_misspelt(settings.source)
    sources = _download_from_arctic_shift(settings) if settings.source == ("arctic-shift",) else settings.source
    posts_files = files.find_posts_files(
        sources,
        names=files.parse_mapping(settings.mapping),
        months=TableChoice.from_options(months=settings.months).months,
        cache=settings.cache,
    )
    if not settings.sql:
        _warn_of_absent_columns(posts_files)
    return LocalPosts(posts_files, months=settings.months)


def source_facts(posts: "Posts") -> dict[str, Any]:
    """Return what fetch's sidecar records about the source.

    These are the source's own facts and, for each of its files, what the file's own sidecar says of its origin.
    """
    facts = posts.facts()
    for file in facts.get("files", ()):
        file |= _read_origin(Path(file["file"]))
    return facts


def _read_origin(file: Path) -> dict[str, Any]:
    try:
        sidecar = json.loads(sidecar_path(file).read_bytes())
        sidecar = sidecar["settings"] | sidecar
        # An import checks a Parquet file by its size and ends: a sidecar with another size is not of this file.
        if sidecar["command"] == "import" and sidecar["parquet"]["bytes"] != file.stat().st_size:
            return {}
        return {key: sidecar[key] for key in _ORIGIN_KEYS.get(sidecar["command"], ())}
    except (OSError, ValueError, LookupError, TypeError):
        return {}


def _refuse_misspelt(sources: tuple[str, ...]) -> None:
    for source in sources:
        if source in _SOURCE_NAMES or not re.fullmatch(r"[\w -]+", source) or Path(source).exists():
            continue
        if close_names := difflib.get_close_matches(source.lower(), _SOURCE_NAMES, n=1, cutoff=0.8):
            raise UsageError(f"--from {source}: no such file; is --from {close_names[0]} meant?")


def _open_bigquery(settings: FetchSettings) -> BigQueryPosts:
    return BigQueryPosts(
        project=settings.project,
        location=settings.location,
        table=settings.table,
        months=settings.months,
        max_bytes=parse_byte_count("--max-bytes", settings.max_bytes),
        job=settings.job,
    )


def _download_from_arctic_shift(settings: FetchSettings) -> tuple[str, ...]:
    from redditgen.fetch.arctic_shift.download import fetch_posts

    folder = settings.cache or _ARCTIC_SHIFT_FOLDER
    fetched = fetch_posts(
        settings.subreddit,
        settings.after,
        settings.before,
        settings.limit,
        folder,
        base_url=settings.base_url,
        refresh=settings.refresh,
    )
    return tuple(str(file.path) for file in fetched)


def _warn_of_absent_columns(posts_files: list[files.PostsFile]) -> None:
    for column, consequence in _CONSEQUENCES.items():
        lacking = [file.path for file in posts_files if not file.source(column)]
        if lacking:
            more = f" and {len(lacking) - 1} more files" if len(lacking) > 1 else ""
            _log.warning("%s%s: no column '%s': %s", lacking[0], more, column, consequence)
