"""The source that --from names: BigQuery, or files of posts, which a dump or Arctic Shift is made to first."""

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
from redditgen.settings.options import byte_count

if TYPE_CHECKING:
    from redditgen.fetch.base import Posts

REMOTE_SOURCES = ("bigquery", "arctic-shift")
_NAMES = (files.SAMPLE, *REMOTE_SOURCES)
_ARCTIC_SHIFT_FOLDER = Path("data/arctic-shift")
# What is told of a file that an import or Arctic Shift made: commands and keys of its own sidecar.
_ORIGINS = {"import": ("counts",), "arcticshift": ("subreddit", "fetched", "posts", "skipped", "crowded")}
_WITHOUT = {
    "score": "--min-score does not apply and titles are taken in order of id",
    "author": "the top subreddits are those with the most posts",
    "over_18": "--sfw goes by the lists of subreddits and words alone",
}

_log = logging.getLogger(__name__)


def open_posts(settings: FetchSettings) -> "Posts":
    """The source, to be used in a `with` block; raises RedditgenError where there is none of that name."""
    if settings.source == ("bigquery",):
        return _bigquery(settings)
    _refuse_misspelt(settings.source)
    sources = _from_arctic_shift(settings) if settings.source == ("arctic-shift",) else settings.source
    found = files.find_posts_files(
        sources,
        names=files.parse_mapping(settings.mapping),
        months=TableChoice.from_options(months=settings.months).months,
        cache=settings.cache,
    )
    if not settings.sql:
        _warn_of_absent_columns(found)
    return LocalPosts(found, months=settings.months)


def source_facts(posts: "Posts") -> dict[str, Any]:
    """What fetch's sidecar tells of the source: its own facts, and what its files' own sidecars say of their posts."""
    told = posts.facts()
    for file in told.get("files", ()):
        file |= _origin(Path(file["file"]))
    return told


def _origin(file: Path) -> dict[str, Any]:
    try:
        said = json.loads(sidecar_path(file).read_bytes())
        said = said["settings"] | said
        if said["command"] == "import" and said["parquet"]["bytes"] != file.stat().st_size:  # it is not of this file
            return {}
        return {key: said[key] for key in _ORIGINS.get(said["command"], ())}
    except (OSError, ValueError, LookupError, TypeError):
        return {}


def _refuse_misspelt(sources: tuple[str, ...]) -> None:
    for source in sources:
        if source in _NAMES or not re.fullmatch(r"[\w -]+", source) or Path(source).exists():
            continue
        if meant := difflib.get_close_matches(source.lower(), _NAMES, n=1, cutoff=0.8):
            raise UsageError(f"--from {source}: no such file; is --from {meant[0]} meant?")


def _bigquery(settings: FetchSettings) -> BigQueryPosts:
    return BigQueryPosts(
        project=settings.project,
        location=settings.location,
        table=settings.table,
        months=settings.months,
        max_bytes=byte_count("--max-bytes", settings.max_bytes),
        job=settings.job,
    )


def _from_arctic_shift(settings: FetchSettings) -> tuple[str, ...]:
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


def _warn_of_absent_columns(found: list[files.PostsFile]) -> None:
    for column, consequence in _WITHOUT.items():
        without = [file.path for file in found if not file.source(column)]
        if without:
            more = f" and {len(without) - 1} more files" if len(without) > 1 else ""
            _log.warning("%s%s: no column '%s': %s", without[0], more, column, consequence)
