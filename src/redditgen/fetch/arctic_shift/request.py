"""The request to Arctic Shift for one subreddit, parsed and checked so that nothing else gets into an address."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from redditgen.errors import UsageError
from redditgen.fetch.sql.columns import DUMP_COLUMN_TYPES

_FORMAT = 1  # version of the files' form; after a change, all posts are downloaded again

# The names of users' profiles, which start with u_, are longer and may have hyphens.
_SUBREDDIT_NAME = re.compile(r"[A-Za-z0-9_]{2,21}|u_[A-Za-z0-9_-]{2,20}|reddit\.com")
_REDDIT_START = 1104537600  # 2005-01-01 in Unix seconds


@dataclass(frozen=True, kw_only=True)
class ArcticShiftSettings:
    """A request for the first `limit` posts from `after` on and before `before`, both in Unix seconds.

    `base_url` must hold no secret, since the sidecar records it.
    """

    base_url: str
    subreddit: str
    after: int
    before: int | None
    limit: int

    @property
    def name(self) -> str:
        """The name of the file of posts: the subreddit and a hash of the rest of the request."""
        content = json.dumps([_FORMAT, list(DUMP_COLUMN_TYPES), self.base_url, self.after, self.before, self.limit])
        return f"{self.subreddit.lower()}-{hashlib.sha256(content.encode()).hexdigest()[:12]}.ndjson"

    @property
    def span(self) -> str:
        """The span of time, for messages."""
        return f"since {format_time(self.after)}" + (f" until {format_time(self.before)}" if self.before else "")


def request_settings(
    subreddits: Sequence[str], after: str, before: str, limit: int, base_url: str
) -> list[ArcticShiftSettings]:
    """Return a request for each subreddit; raises UsageError where a value is malformed or out of range."""
    start, end = parse_time("--after", after), parse_time("--before", before) if before else None
    if end is not None and start >= end:
        raise UsageError(f"--after ({after}) must be earlier than --before ({before})")
    if limit < 1:
        raise UsageError(f"--limit must be 1 or more, not {limit}")
    return [
        ArcticShiftSettings(base_url=base_url, subreddit=name, after=start, before=end, limit=limit)
        for name in parse_subreddits(subreddits)
    ]


def parse_subreddits(subreddits: Sequence[str]) -> list[str]:
    """Return the names in comma-separated lists of subreddits, each once; raises UsageError where one is malformed."""
    names = [name.strip(" \t\r\n/") for text in subreddits for name in text.split(",") if name.strip()]
    unique: dict[str, str] = {}
    for name in names:
        plain = re.sub(r"^(?:r/|(u)/)", lambda prefix: "u_" if prefix[1] else "", name, flags=re.IGNORECASE)
        if not _SUBREDDIT_NAME.fullmatch(plain):
            raise UsageError(
                f"--subreddit: {name[:50]!r} is no subreddit's name; names have 2 to 21 letters, digits and underscores"
            )
        unique.setdefault(plain.lower(), plain)
    if not unique:
        raise UsageError("--subreddit must name the subreddits to fetch, such as cats,AskReddit")
    return list(unique.values())


def parse_time(option: str, written: str) -> int:
    """Return Unix seconds for a date or time in ISO 8601, by default in UTC, or for ten digits, which are Unix seconds.

    Times before 2005, when Reddit began, become the start of 2005. Raises UsageError, which names `option`, where
    `written` is neither.
    """
    text = written.strip()
    if re.fullmatch(r"[0-9]{10}", text):  # since 2001; fewer digits are a date such as 20240131
        return max(_REDDIT_START, int(text))
    try:
        parsed = datetime.fromisoformat(text)
        return max(_REDDIT_START, int((parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()))
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"{option} must be a date such as 2024-01-31, 2024-01-31T18:00, or Unix seconds, not {written[:50]!r}"
        ) from error


def format_time(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
