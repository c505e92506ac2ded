"""Posts from Arctic Shift's web API, without an account: the first ones of each subreddit since a date, as NDJSON.

Every line of a file has all columns of `dump_posts.TYPES`. The file's name holds a hash of what was asked for, its
sidecar says it, and what was fetched once is not asked for again. While a file grows, its pages lie beside it.
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

_A_REQUEST = PAUSE + 2  # seconds, about
_MANY = 1000  # requests
_SETTLED = 36 * 3600  # seconds until a post has its score

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FetchedPosts:
    """A subreddit's posts as NDJSON."""

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
    """The first `limit` posts of each subreddit from `after` on and earlier than `before`, if that is not ''.

    What is in the folder already is not asked for again unless `refresh`. Raises InputError if no subreddit has posts;
    what has come stays when another error is raised, and the same call goes on from there.
    """
    wanted = request.request_settings(subreddits, after, before, limit, http.redact_url(search_url(base_url)))
    make_folder(folder)
    try:
        with exclusive_lock(folder, "fetching to it"):
            fetched = _fetch(wanted, folder, base_url, refresh)
    except KeyboardInterrupt as error:
        raise Interrupted(f"fetch interrupted; what has come is in {folder}, and {_again(refresh)}") from error
    except OSError as error:
        raise InputError(
            f"{error.filename or folder}: {error.strerror or error}; no posts can be kept there"
        ) from error
    if not fetched:
        names = ", ".join(f"r/{settings.subreddit}" for settings in wanted)
        raise InputError(f"{names}: no posts {wanted[0].span}; check --subreddit, --after and --before")
    return fetched


def _fetch(wanted: Sequence[ArcticShiftSettings], folder: Path, base_url: str, refresh: bool) -> list[FetchedPosts]:
    if refresh:
        for settings in wanted:
            _pages_path(folder, settings).unlink(missing_ok=True)
    there = {settings: None if refresh else _made_before(folder, settings) for settings in wanted}
    todo = {
        settings: PageFile(_pages_path(folder, settings), settings.after)
        for settings, fetched in there.items()
        if not fetched
    }
    if todo:
        _announce(todo, folder)
        with http.open_client() as client, _progress(todo) as progress:
            api = Api(client, base_url)
            for settings, pages in todo.items():
                _collect(api, settings, pages, progress, _again(refresh))
                there[settings] = _finish(folder, settings, pages)
    return [fetched for fetched in there.values() if fetched]


def _pages_path(folder: Path, settings: ArcticShiftSettings) -> Path:
    return folder / f".{settings.name}.pages"


def _made_before(folder: Path, settings: ArcticShiftSettings) -> FetchedPosts | None:
    """The file, if it is whole; pages beside it are newer, of a refresh that did not come to its end."""
    path = folder / settings.name
    if not path.is_file() or _pages_path(folder, settings).exists():
        return None
    try:
        said = json.loads(sidecar_path(path).read_bytes())
        fetched = FetchedPosts(path, settings.subreddit, said["posts"], said["skipped"])
    except (OSError, ValueError, TypeError, LookupError):
        return None
    _log.info("r/%s: %d posts, fetched %s; --refresh asks anew", settings.subreddit, fetched.posts, said.get("fetched"))
    return fetched


def _again(refresh: bool) -> str:
    return "the same command " + ("without --refresh " if refresh else "") + "goes on from here"


def _announce(todo: dict[ArcticShiftSettings, PageFile], folder: Path) -> None:
    first = next(iter(todo))
    kept = sum(pages.reached.posts for pages in todo.values())
    left = [max(0, settings.limit - pages.reached.posts) for settings, pages in todo.items()]
    fewest = sum(-(-posts // MAX_PAGE) for posts in left)
    most = sum(-(-posts // MIN_PAGE) + 1 for posts in left)
    seconds = most * _A_REQUEST
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
    if fewest > _MANY:
        _log.warning(
            "that is much for a free service; monthly dumps such as RS_2024-01.zst are made for it: see --from"
        )


def _progress(todo: dict[ArcticShiftSettings, PageFile]) -> Progress:
    total = sum(settings.limit for settings in todo)
    return Progress("fetch", unit="posts", total=total, done=sum(pages.reached.posts for pages in todo.values()))


# Page after page


def _collect(api: Api, settings: ArcticShiftSettings, pages: PageFile, progress: Progress, again: str) -> None:
    """Add pages until there are enough posts or no more.

    Each page begins a second before the last one ended: so it does not matter whether the API counts the second itself,
    and no post is lost of a second that a page's end cuts through.
    """
    while (wanted := settings.limit - pages.reached.posts) > 0:
        reached = pages.reached
        query: dict[str, str | int] = {"subreddit": settings.subreddit, "after": reached.cursor - 1}
        if settings.before:
            query["before"] = settings.before
        kept = f"{reached.posts} posts of r/{settings.subreddit} are kept; {again}"
        page = api.page(query, wanted=wanted, known=len(reached.known), again=kept)
        came = read_page(page.posts, settings, reached)
        if came.has_news:
            posts = came.posts[:wanted]
            pages.add(posts, _next(reached, came, len(posts)))
            progress.update(len(posts), f"r/{settings.subreddit}")
        elif _is_last(page, came, settings):
            break
        else:
            pages.add((), _past_crowd(reached, settings))


def _next(reached: Position, came: PageContent, posts: int) -> Position:
    known = reached.known | came.keys
    return dataclasses.replace(
        _moved(reached, max(reached.cursor, *known.values()), known),
        posts=reached.posts + posts,
        skipped=reached.skipped + came.skipped,
    )


def _moved(reached: Position, cursor: int, known: dict[str, int]) -> Position:
    still = {key: created for key, created in known.items() if created >= cursor - 1}
    return dataclasses.replace(reached, cursor=cursor, known=still)


def _is_last(page: Page, came: PageContent, settings: ArcticShiftSettings) -> bool:
    """Whether there are no more posts; raises InputError if the page has others than were asked for."""
    if came.foreign:
        raise InputError(
            f"{settings.base_url}: answers with posts that were not asked for (r/{settings.subreddit}); "
            f"is --base-url like {URL}?"
        )
    return came.has_ended or len(page.posts) < page.full


def _past_crowd(reached: Position, settings: ArcticShiftSettings) -> Position:
    """One second later: more posts than a page holds are of one second, and the API can't give the others."""
    crowded = reached.crowded
    if reached.cursor in reached.known.values():
        crowded += (reached.cursor,)
        _log.warning(
            "r/%s: more posts at %s than the API gives; the others of this second are left out",
            settings.subreddit,
            format_time(reached.cursor),
        )
    return dataclasses.replace(_moved(reached, reached.cursor + 1, reached.known), crowded=crowded)


def _finish(folder: Path, settings: ArcticShiftSettings, pages: PageFile) -> FetchedPosts | None:
    """The posts in a file of their own; None if there are none."""
    reached, path = pages.reached, folder / settings.name
    if reached.skipped:
        _log.warning("r/%s: left out %d posts without id, title or time", settings.subreddit, reached.skipped)
    if not reached.posts:
        _log.warning("r/%s: no posts %s; check the name", settings.subreddit, settings.span)
        pages.delete()
        return None
    with atomic_write(path) as temporary:
        pages.copy_posts(temporary)
        # Before the file has its name: one without a sidecar would be fetched anew.
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
    if reached.cursor > time.time() - _SETTLED:
        _log.warning("r/%s: posts get their score after 36 hours; of the latest it is 1 or 0", settings.subreddit)
    return FetchedPosts(path, settings.subreddit, reached.posts, reached.skipped)
