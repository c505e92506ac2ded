"""fetch: posts in, a CSV of the best titles of the top subreddits out."""

import csv
import dataclasses
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from redditgen.errors import InputError, UsageError
from redditgen.fetch import files, query
from redditgen.fetch.duckdb import LocalPosts
from redditgen.fetch.files import PostsFile
from redditgen.output import refuse_existing, whole, write_sidecar
from redditgen.settings import FetchSettings

_log = logging.getLogger(__name__)

_WITHOUT = {
    "score": "--min-score does not apply and titles are taken in order of id",
    "author": "the top subreddits are those with the most posts",
    "over_18": "--sfw does not apply",
}


@dataclasses.dataclass(frozen=True)
class FetchCounts:
    posts: int
    subreddits: int
    titles: int


def fetch(settings: FetchSettings) -> FetchCounts:
    """Write `settings.out` and its sidecar; raises a RedditgenError, and writes nothing, if no title is left."""
    refuse_existing(settings.out, settings.overwrite)
    sql, parameters = query.text(), query.parameters(settings)
    posts_files = files.find(settings.source)
    _refuse_own_output(posts_files, settings.out)
    _warn_of_absent_columns(posts_files)
    with LocalPosts(posts_files, min_score=settings.min_score) as posts, whole(settings.out) as temporary:
        posts_read = posts.count()
        subreddits, titles = _write(temporary, posts.run(sql, parameters))
        counts = FetchCounts(posts_read, subreddits, titles)
        _refuse_nothing(counts, settings)
    write_sidecar(
        settings.out,
        settings,
        inputs=[file.path for file in posts_files],
        source=[{"file": file.path, "format": file.format, "absent": file.absent} for file in posts_files],
        sql=sql,
        parameters=parameters,
        counts=dataclasses.asdict(counts),
    )
    _log.info("%s: %d titles from %d subreddits", settings.out, counts.titles, counts.subreddits)
    return counts


def _write(path: Path, rows: Iterable[tuple[str, str]]) -> tuple[int, int]:
    """Write the CSV; how many subreddits and titles are in it."""
    subreddits: set[str] = set()
    titles = 0
    with path.open("w", encoding="utf8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("subreddit", "title"))
        for subreddit, title in rows:
            writer.writerow((subreddit, title))
            subreddits.add(subreddit)
            titles += 1
    return len(subreddits), titles


def _refuse_own_output(posts_files: Sequence[PostsFile], out: Path) -> None:
    if out.resolve() in {file.path.resolve() for file in posts_files}:
        raise UsageError(f"{out}: is both read and written; give another file with --out")


def _refuse_nothing(counts: FetchCounts, settings: FetchSettings) -> None:
    if counts.titles:
        return
    where = ", ".join(settings.source)
    if not counts.posts:
        raise InputError(f"{where}: no posts in it; give another source with --from")
    raise InputError(
        f"{where}: no title left of {counts.posts} posts; "
        f"lower --min-score (now {settings.min_score}), or see what --block and --sfw leave out"
    )


def _warn_of_absent_columns(posts_files: Sequence[PostsFile]) -> None:
    for column, consequence in _WITHOUT.items():
        without = [file.path for file in posts_files if column in file.absent]
        if without:
            more = f" and {len(without) - 1} more files" if len(without) > 1 else ""
            _log.warning("%s%s: no column '%s': %s", without[0], more, column, consequence)
