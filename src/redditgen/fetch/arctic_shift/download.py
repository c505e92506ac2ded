"""Downloads the first posts of each subreddit since a date from Arctic Shift's web API, which needs no account.

The posts of a subreddit become an NDJSON file; every line has all columns of DUMP_COLUMN_TYPES. The file's name holds a
hash of the request, and its sidecar the request itself, so that a finished download is not repeated. Until then the
pages are kept in a hidden file next to it (redditgen.fetch.arctic_shift.pages), from which an interrupted download is
continued.
"""

import dataclasses
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from redditgen.errors import InputError, Interrupted
from redditgen.fetch.arctic_shift import request
from redditgen.fetch.arctic_shift.api import MAX_PAGE, MIN_PAGE, PAUSE, URL, Api, Page, search_url
from redditgen.fetch.arctic_shift.pages import PageFile, Position
from redditgen.fetch.arctic_shift.posts import PageContent, read_page
from redditgen.fetch.arctic_shift.request import ArcticShiftSettings, format_time
from redditgen.files.atomic import atomic_write, make_folder
from redditgen.files.locks import exclusive_lock
from redditgen.files.sidecar import sidecar_path, write_sidecar
from redditgen.runtime import http
from redditgen.runtime.progress import Progress

_REQUEST_SECONDS = PAUSE + 2  # seconds that a request takes, about
_MANY_REQUESTS = 1000  # above this, a warning suggests monthly dumps
_SCORE_DELAY = 36 * 3600  # seconds until Arctic Shift has a post's score

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FetchedPosts:
    """A subreddit's file of posts in NDJSON, with how many posts it holds and how many malformed ones were skipped."""

    path: Path
    subreddit: str
    posts: int
    skipped: int


def fetch_posts(
    subreddits: Sequence[str],
    after: str,
    before: str,
    limit: int,
    folder: Path,
    *,
    base_url: str = URL,
    refresh: bool = False,
) -> list[FetchedPosts]:
    """Download the first `limit` posts of each subreddit from `after` on and, unless it is '', earlier than `before`.

    Posts that are already in the folder are not requested again unless `refresh`. Raises InputError where no subreddit
    has posts. After any other error, the downloaded pages are kept, and the same call continues from there.
    """
    wanted = request.request_settings(subreddits, after, before, limit, http.redact_url(search_url(base_url)))
    make_folder(folder)
    try:
        with exclusive_lock(folder, "fetching to it"):
            fetched = _download(wanted, folder, base_url, refresh)
    except KeyboardInterrupt as error:
        raise Interrupted(f"fetch interrupted; what has come is in {folder}, and {_resume_advice(refresh)}") from error
    except OSError as error:
        raise InputError(
            f"{error.filename or folder}: {error.strerror or error}; no posts can be kept there"
        ) from error
    if not fetched:
        names = ", ".join(f"r/{settings.subreddit}" for settings in wanted)
        raise InputError(f"{names}: no posts {wanted[0].span}; check --subreddit, --after and --before")
    return fetched


def _download(wanted: Sequence[ArcticShiftSettings], folder: Path, base_url: str, refresh: bool) -> list[FetchedPosts]:
    if refresh:
        for settings in wanted:
            _pages_path(folder, settings).unlink(missing_ok=True)
    results = {settings: None if refresh else _find_fetched(folder, settings) for settings in wanted}
    todo = {
        settings: PageFile(_pages_path(folder, settings), settings.after)
        for settings, fetched in results.items()
        if not fetched
    }
    if todo:
        _announce(todo, folder)
        with http.open_client() as client, _open_progress(todo) as progress:
            api = Api(client, base_url)
            for settings, pages in todo.items():
                _fetch_pages(api, settings, pages, progress, _resume_advice(refresh))
                results[settings] = _write_posts(folder, settings, pages)
    return [fetched for fetched in results.values() if fetched]


def _pages_path(folder: Path, settings: ArcticShiftSettings) -> Path:
    return folder / f".{settings.name}.pages"


def _find_fetched(folder: Path, settings: ArcticShiftSettings) -> FetchedPosts | None:
    """Return the finished file, or None where there is none; pages next to it are newer, from an unfinished refresh."""
    path = folder / settings.name
    if not path.is_file() or _pages_path(folder, settings).exists():
        return None
    try:
        sidecar = json.loads(sidecar_path(path).read_bytes())
        fetched = FetchedPosts(path, settings.subreddit, sidecar["posts"], sidecar["skipped"])
    except (OSError, ValueError, TypeError, LookupError):
        return None
    _log.info(
        "r/%s: %d posts, fetched %s; --refresh asks anew", settings.subreddit, fetched.posts, sidecar.get("fetched")
    )
    return fetched


def _resume_advice(refresh: bool) -> str:
    return "the same command " + ("without --refresh " if refresh else "") + "goes on from here"


def _announce(todo: dict[ArcticShiftSettings, PageFile], folder: Path) -> None:
    first = next(iter(todo))
    kept = sum(pages.reached.posts for pages in todo.values())
    missing = [max(0, settings.limit - pages.reached.posts) for settings, pages in todo.items()]
    fewest = sum(-(-posts // MAX_PAGE) for posts in missing)
    most = sum(-(-posts // MIN_PAGE) + 1 for posts in missing)
    seconds = most * _REQUEST_SECONDS
    _log.info(
        "asking %s for %s, the first %d posts each %s%s: %d to %d requests, one at a time, up to about %s; "
        "nothing else is sent, no account is needed; posts are kept in %s",
        first.base_url,
        ", ".join(f"r/{settings.subreddit}" for settings in todo),
        first.limit,
        first.span,
        f" ({kept} are here from an earlier try)" if kept else "",
        fewest,
        most,
        f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes",
        folder,
    )
    if fewest > _MANY_REQUESTS:
        _log.warning(
            "that is much for a free service; monthly dumps such as RS_2024-01.zst are made for it: see --from"
        )


def _open_progress(todo: dict[ArcticShiftSettings, PageFile]) -> Progress:
    total = sum(settings.limit for settings in todo)
    return Progress("fetch", unit="posts", total=total, done=sum(pages.reached.posts for pages in todo.values()))


# Pages


def _fetch_pages(
    api: Api, settings: ArcticShiftSettings, pages: PageFile, progress: Progress, resume_advice: str
) -> None:
    """Download and store pages until there are enough posts, or the API has no more.

    Each page begins one second before the end of the last one. So it does not matter whether the API includes the
    second of `after`, and no post is lost where a page ends within a second.
    """
    while (wanted := settings.limit - pages.reached.posts) > 0:
        reached = pages.reached
        query: dict[str, str | int] = {"subreddit": settings.subreddit, "after": reached.cursor - 1}
        if settings.before:
            query["before"] = settings.before
        advice = f"{reached.posts} posts of r/{settings.subreddit} are kept; {resume_advice}"
        page = api.page(query, wanted=wanted, known=len(reached.known), advice=advice)
        content = read_page(page.posts, settings, reached)
        if content.has_news:
            posts = content.posts[:wanted]
            pages.add(posts, _advance(reached, content, len(posts)))
            progress.update(len(posts), f"r/{settings.subreddit}")
        elif _is_last(page, content, settings):
            break
        else:
            pages.add((), _skip_crowded_second(reached, settings))


def _advance(reached: Position, content: PageContent, posts: int) -> Position:
    known = reached.known | content.keys
    return dataclasses.replace(
        _move_cursor(reached, max(reached.cursor, *known.values()), known),
        posts=reached.posts + posts,
        skipped=reached.skipped + content.skipped,
    )


def _move_cursor(reached: Position, cursor: int, known: dict[str, int]) -> Position:
    recent = {key: created for key, created in known.items() if created >= cursor - 1}
    return dataclasses.replace(reached, cursor=cursor, known=recent)


def _is_last(page: Page, content: PageContent, settings: ArcticShiftSettings) -> bool:
    """Return whether there are no more posts; raises InputError where the page has posts that were not requested."""
    if content.foreign:
        raise InputError(
            f"{settings.base_url}: answers with posts that were not asked for (r/{settings.subreddit}); "
            f"is --base-url like {URL}?"
        )
    return content.has_ended or len(page.posts) < page.full


def _skip_crowded_second(reached: Position, settings: ArcticShiftSettings) -> Position:
    """Return the position one second later: the API can't return more posts of a second than a page holds."""
    crowded = reached.crowded
    if reached.cursor in reached.known.values():
        crowded += (reached.cursor,)
        _log.warning(
            "r/%s: more posts at %s than the API gives; the others of this second are left out",
            settings.subreddit,
            format_time(reached.cursor),
        )
    return dataclasses.replace(_move_cursor(reached, reached.cursor + 1, reached.known), crowded=crowded)


def _write_posts(folder: Path, settings: ArcticShiftSettings, pages: PageFile) -> FetchedPosts | None:
    """Write the downloaded posts to their file, with a sidecar, and delete the pages; return None without posts."""
    reached, path = pages.reached, folder / settings.name
    if reached.skipped:
        _log.warning("r/%s: left out %d posts without id, title or time", settings.subreddit, reached.skipped)
    if not reached.posts:
        _log.warning("r/%s: no posts %s; check the name", settings.subreddit, settings.span)
        pages.delete()
        return None
    with atomic_write(path) as temporary:
        pages.copy_posts(temporary)
        # Written before the file has its name: a file without a sidecar would be fetched again.
        write_sidecar(
            path,
            settings,
            inputs=[],
            fetched=format_time(int(time.time())),
            posts=reached.posts,
            skipped=reached.skipped,
            crowded=reached.crowded,
        )
    pages.delete()
    _log.info("r/%s: %d posts until %s", settings.subreddit, reached.posts, format_time(reached.cursor))
    if reached.cursor > time.time() - _SCORE_DELAY:
        _log.warning("r/%s: posts get their score after 36 hours; of the latest it is 1 or 0", settings.subreddit)
    return FetchedPosts(path, settings.subreddit, reached.posts, reached.skipped)
