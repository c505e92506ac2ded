"""The posts of a page as the API sends them, made into rows of `dump_posts.TYPES`; what can't be one is counted."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from redditgen.errors import InputError
from redditgen.fetch.arctic_shift.api import URL
from redditgen.fetch.arctic_shift.pages import Position
from redditgen.fetch.arctic_shift.request import ArcticShiftSettings
from redditgen.fetch.sql.columns import DUMP_COLUMN_TYPES
from redditgen.files import surrogates

_NEEDED = ("id", "subreddit", "title", "created_utc")
_LARGEST = 2**63  # what a BIGINT must be less than
_LATEST = 10**11  # seconds; what is more is no time of a post


@dataclass
class PageContent:
    """What was in a page beyond what the pages before it had."""

    posts: list[dict[str, Any]] = field(default_factory=list)
    keys: dict[str, int] = field(default_factory=dict)
    """What tells a post from others, and its created_utc, for all that were asked for."""
    has_news: bool = False
    has_ended: bool = False
    """There are posts of the second at which the span ends."""
    skipped: int = 0
    foreign: int = 0
    """Not asked for at all."""


def read_page(page: Sequence[Any], settings: ArcticShiftSettings, reached: Position) -> PageContent:
    """Raises InputError where the page begins later than it ends."""
    came = PageContent()
    created = reached.cursor
    for content in page:
        post = content if isinstance(content, dict) else {}
        own = _time(post)
        created = created if own is None else own  # one without a time is near the one before it
        _take(came, content, _row(post), created, settings, reached)
    _check_order(page, settings)
    return came


def _take(
    came: PageContent, content: Any, row: dict[str, Any], created: int, settings: ArcticShiftSettings, reached: Position
) -> None:
    subreddit = row["subreddit"] or settings.subreddit
    if settings.before and created >= settings.before:
        came.has_ended = True
        return
    if subreddit.lower() != settings.subreddit.lower() or created < reached.cursor - 1:
        came.foreign += 1
        return
    key = row["id"] or "?" + hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    is_known = key in came.keys or key in reached.known
    came.keys[key] = created
    if is_known or created < settings.after:
        return
    came.has_news |= row["created_utc"] is not None
    if any(row[name] is None for name in _NEEDED):
        came.skipped += 1
    else:
        came.posts.append(row)


def _check_order(page: Sequence[Any], settings: ArcticShiftSettings) -> None:
    times = [time for post in page if isinstance(post, dict) and (time := _time(post)) is not None]
    if times and times[0] > times[-1]:
        raise InputError(
            f"{settings.base_url}: posts of r/{settings.subreddit} come in the wrong order; is --base-url like {URL}?"
        )


def _time(post: Mapping[str, Any]) -> int | None:
    seconds = _whole(post.get("created_utc"))
    return seconds if seconds is not None and 0 <= seconds < _LATEST else None


def _row(post: Mapping[str, Any]) -> dict[str, Any]:
    """A post's values, None where it lacks one or has one of another type."""
    readers = {"VARCHAR": _text, "BIGINT": _whole, "BOOLEAN": _truth}
    row = {name: readers[type](post.get(name)) for name, type in DUMP_COLUMN_TYPES.items()}
    return row | {"id": row["id"] or None, "created_utc": _time(post)}


def _text(value: Any) -> str | None:
    return surrogates.replace_surrogates(value) if isinstance(value, str) else None


def _whole(value: Any) -> int | None:
    """A whole number; created_utc has come as 5, 5.0, "5" and "5.0"."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = value if isinstance(value, int) else float(value)
    except ValueError:
        return None
    return int(number) if math.isfinite(number) and abs(number) < _LARGEST else None


def _truth(value: Any) -> bool | None:
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.lower())
    return bool(value) if value in (0, 1) else None
