"""Converts the posts of a page, as the API returns them, to rows of DUMP_COLUMN_TYPES, and counts malformed ones."""

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

_REQUIRED = ("id", "subreddit", "title", "created_utc")
_BIGINT_LIMIT = 2**63  # a BIGINT must be less
_TIME_LIMIT = 10**11  # Unix seconds; a larger number is no time of a post


@dataclass
class PageContent:
    """The new posts of a page, and what else was in it."""

    posts: list[dict[str, Any]] = field(default_factory=list)
    keys: dict[str, int] = field(default_factory=dict)
    """The identifying key and the created_utc of each post that belongs to the request, also of known ones."""
    has_news: bool = False
    """There are new posts with a valid time."""
    has_ended: bool = False
    """There are posts at or after the end of the requested span."""
    skipped: int = 0
    """The number of new posts without id, subreddit, title or time."""
    foreign: int = 0
    """The number of posts that were not requested: of another subreddit, or before the requested time."""


def read_page(page: Sequence[Any], settings: ArcticShiftSettings, reached: Position) -> PageContent:
    """Return the content of a page after the position `reached`.

    Raises InputError where the first post is later than the last one.
    """
    result = PageContent()
    created = reached.cursor
    for item in page:
        post = item if isinstance(item, dict) else {}
        time = _created_utc(post)
        created = created if time is None else time  # a post without a time gets that of the post before it
        _add_post(result, item, _to_row(post), created, settings, reached)
    _check_order(page, settings)
    return result


def _add_post(
    result: PageContent, item: Any, row: dict[str, Any], created: int, settings: ArcticShiftSettings, reached: Position
) -> None:
    subreddit = row["subreddit"] or settings.subreddit
    if settings.before and created >= settings.before:
        result.has_ended = True
        return
    if subreddit.lower() != settings.subreddit.lower() or created < reached.cursor - 1:
        result.foreign += 1
        return
    key = row["id"] or "?" + hashlib.sha256(json.dumps(item, sort_keys=True).encode()).hexdigest()[:16]
    is_known = key in result.keys or key in reached.known
    result.keys[key] = created
    if is_known or created < settings.after:
        return
    result.has_news |= row["created_utc"] is not None
    if any(row[name] is None for name in _REQUIRED):
        result.skipped += 1
    else:
        result.posts.append(row)


def _check_order(page: Sequence[Any], settings: ArcticShiftSettings) -> None:
    times = [time for post in page if isinstance(post, dict) and (time := _created_utc(post)) is not None]
    if times and times[0] > times[-1]:
        raise InputError(
            f"{settings.base_url}: posts of r/{settings.subreddit} come in the wrong order; is --base-url like {URL}?"
        )


def _created_utc(post: Mapping[str, Any]) -> int | None:
    seconds = _to_integer(post.get("created_utc"))
    return seconds if seconds is not None and 0 <= seconds < _TIME_LIMIT else None


def _to_row(post: Mapping[str, Any]) -> dict[str, Any]:
    """Return a post's values by column, with None for missing values and values of another type."""
    readers = {"VARCHAR": _to_text, "BIGINT": _to_integer, "BOOLEAN": _to_boolean}
    row = {name: readers[type](post.get(name)) for name, type in DUMP_COLUMN_TYPES.items()}
    return row | {"id": row["id"] or None, "created_utc": _created_utc(post)}


def _to_text(value: Any) -> str | None:
    return surrogates.replace_surrogates(value) if isinstance(value, str) else None


def _to_integer(value: Any) -> int | None:
    """Return a whole number, or None; the API has returned created_utc as 5, 5.0, "5" and "5.0"."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = value if isinstance(value, int) else float(value)
    except ValueError:
        return None
    return int(number) if math.isfinite(number) and abs(number) < _BIGINT_LIMIT else None


def _to_boolean(value: Any) -> bool | None:
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.lower())
    return bool(value) if value in (0, 1) else None
