"""What is asked of Arctic Shift for one subreddit: checked, so that nothing else gets into an address."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from redditgen.errors import UsageError
from redditgen.fetch.sql.columns import DUMP_COLUMN_TYPES

_FORMAT = 1  # of the files; a change of it makes everything be fetched anew

# Names of users' own pages are longer, and may have hyphens.
_NAME = re.compile(r"[A-Za-z0-9_]{2,21}|u_[A-Za-z0-9_-]{2,20}|reddit\.com")
_REDDIT_BEGINS = 1104537600  # 2005-01-01


@dataclass(frozen=True, kw_only=True)
class ArcticShiftSettings:
    """The first `limit` posts from `after` on and before `before`, in Unix seconds; `base_url` holds no secret."""

    base_url: str
    subreddit: str
    after: int
    before: int | None
    limit: int

    @property
    def name(self) -> str:
        """Of the file of posts."""
        content = json.dumps([_FORMAT, list(DUMP_COLUMN_TYPES), self.base_url, self.after, self.before, self.limit])
        return f"{self.subreddit.lower()}-{hashlib.sha256(content.encode()).hexdigest()[:12]}.ndjson"

    @property
    def span(self) -> str:
        return f"since {format_time(self.after)}" + (f" until {format_time(self.before)}" if self.before else "")


def request_settings(
    subreddits: Sequence[str], after: str, before: str, limit: int, base_url: str
) -> list[ArcticShiftSettings]:
    """One a subreddit; raises UsageError where something can't be meant."""
    since, until = parse_time("--after", after), parse_time("--before", before) if before else None
    if until is not None and since >= until:
        raise UsageError(f"--after ({after}) must be earlier than --before ({before})")
    if limit < 1:
        raise UsageError(f"--limit must be 1 or more, not {limit}")
    return [
        ArcticShiftSettings(base_url=base_url, subreddit=name, after=since, before=until, limit=limit)
        for name in parse_subreddits(subreddits)
    ]


def parse_subreddits(subreddits: Sequence[str]) -> list[str]:
    """The subreddits in texts with commas between them, each once."""
    written = [name.strip(" \t\r\n/") for text in subreddits for name in text.split(",") if name.strip()]
    found: dict[str, str] = {}
    for name in written:
        plain = re.sub(r"^(?:r/|(u)/)", lambda start: "u_" if start[1] else "", name, flags=re.IGNORECASE)
        if not _NAME.fullmatch(plain):
            raise UsageError(
                f"--subreddit: {name[:50]!r} is no subreddit's name; names have 2 to 21 letters, digits and underscores"
            )
        found.setdefault(plain.lower(), plain)
    if not found:
        raise UsageError("--subreddit must name the subreddits to fetch, such as cats,AskReddit")
    return list(found.values())


def parse_time(option: str, written: str) -> int:
    """Unix seconds of a date or time in ISO 8601, in UTC if it does not say, or of Unix seconds themselves."""
    text = written.strip()
    if re.fullmatch(r"[0-9]{10}", text):  # since 2001; fewer digits are a date such as 20240131
        return max(_REDDIT_BEGINS, int(text))
    try:
        parsed = datetime.fromisoformat(text)
        return max(_REDDIT_BEGINS, int((parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()))
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"{option} must be a date such as 2024-01-31, 2024-01-31T18:00, or Unix seconds, not {written[:50]!r}"
        ) from error


def format_time(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
