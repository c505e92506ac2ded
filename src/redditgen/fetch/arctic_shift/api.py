"""Requests to Arctic Shift's web API: one at a time, with a pause between them, and its rate limit honoured.

Documented (github.com/ArthurHeitmann/arctic_shift, api/README.md at 57b3e571): /api/posts/search takes subreddit,
after, before (Unix seconds, among others), sort=asc|desc by created_utc, and limit, 1 to 100 or `auto`, which gives 100
to 1000 "depending on the capacity of the server". X-RateLimit-Remaining is how many requests are left,
X-RateLimit-Reset when they are counted anew; "a couple requests per second" are welcome. No account, no uptime
guarantee. Posts get their score and num_comments after 36 hours; before, they are 1 or 0.

Not documented, seen by others:
- Errors are {"data": null, "error": "..."}. "Timeout. Maybe slow down a bit" comes with status 422, both where a page
  is too much for the database (issue 66: limit=50 passes where 100 doesn't) and where requests come too fast.
- X-RateLimit-Reset is in seconds, though some take it for a time; so both are understood.
- `after` includes the second that it names (arctic_shift_ui, src/lib/archiveStream.ts, the site's own download tool,
  which asks as this does: whole posts, limit=auto, sort=asc), `before` doesn't; neither is relied on.
- `fields` refuses names it does not know (status 400), and knows no flag but over_18: so whole posts are asked for,
  and compressed.
"""

import email.utils
import json
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from redditgen.errors import InputError, MissingError, UsageError
from redditgen.runtime.http import RetryPolicy, TransientError, open_response, redact_url, url_below
from redditgen.settings import ARCTIC_SHIFT_URL

if TYPE_CHECKING:
    import httpx

URL = ARCTIC_SHIFT_URL

MAX_PAGE, MIN_PAGE = 1000, 100  # posts in a page with limit=auto, if there are that many
_FEWEST = 25  # posts in a page, where more are too much for the server

PAUSE = 1.0  # seconds between requests
_PAUSES = (2.0, 10.0, 60.0)  # seconds before the second, third and fourth try
_LONGEST_PAUSE = 900.0  # seconds
_USUAL_RESET = 60.0  # seconds, where the server does not say
_LONGEST_ANSWER = 120.0  # seconds

_MB = 1 << 20
_LARGEST_ANSWER = 32 * _MB  # a page of 1000 usual posts has 2 to 5

_TOO_MUCH = re.compile(r"time[- ]?d?[- ]?out|slow down", re.IGNORECASE)
_LATER = re.compile(r"maintenance|too many requests", re.IGNORECASE)
_TITLE = re.compile(rb"<title[^>]*>(.*?)</title", re.IGNORECASE | re.DOTALL)

_log = logging.getLogger(__name__)


class PageTooLarge(TransientError):
    """A failure that a smaller page may mend."""


@dataclass(frozen=True)
class Page:
    """Posts in order of created_utc, if the server does what it is asked; with `full` of them there may be more."""

    posts: list[Any]
    full: int


class Api:
    def __init__(self, client: "httpx.Client", base_url: str) -> None:
        self._client, self._url = client, search_url(base_url)
        self._due = 0.0  # when the next request may be sent, on the monotonic clock
        self._most = MAX_PAGE
        self._has_answered = False

    def page(self, query: Mapping[str, str | int], *, wanted: int, known: int, again: str) -> Page:
        """The posts of a query, as many as are wanted at most, besides `known` ones that come first.

        Raises MissingError with what to do, `again`, where no try succeeds.
        """
        patience = RetryPolicy(_PAUSES, _LONGEST_PAUSE)
        while True:
            limit = min(wanted + known, max(self._most, known + _FEWEST))
            try:
                self._wait(again)
                posts = self._asked({**query, "sort": "asc", "limit": limit if limit <= MIN_PAGE else "auto"})
                return Page(posts, min(limit, MIN_PAGE))
            except TransientError as failure:
                message = f"{failure}; {again}"
                if not failure.connected and not self._has_answered:
                    raise MissingError(message) from failure
                if isinstance(failure, PageTooLarge):
                    self._most = max(_FEWEST, min(MIN_PAGE, limit // 2))
                patience.wait(failure, message)

    def _wait(self, again: str) -> None:
        pause = self._due - time.monotonic()
        if pause > _LONGEST_PAUSE:
            raise MissingError(f"{redact_url(self._url)}: its rate limit is used up for {pause:.0f} s; {again}")
        if pause > 2 * PAUSE:
            _log.info("%s: its rate limit is used up; waiting %.0f s", redact_url(self._url), pause)
        if pause > 0:
            time.sleep(pause)

    def _asked(self, query: Mapping[str, str | int]) -> list[Any]:
        url = self._url.copy_merge_params(dict(query))
        headers = {"Accept": "application/json", "Accept-Encoding": "gzip"}
        with open_response(self._client, "GET", url, range(200, 600), **headers) as response:
            self._has_answered = True
            self._due = time.monotonic() + _rate_limit(response.headers)
            try:
                body = _body(response)
            finally:
                self._due = max(self._due, time.monotonic() + PAUSE)
            return _posts(response, body)


def search_url(base_url: str) -> "httpx.URL":
    """Where posts are searched; raises UsageError if that is no address."""
    no_address = UsageError(f"--base-url is no address; it must be like {URL}")
    try:
        url = url_below(base_url, ["api", "posts", "search"])
    except UsageError as error:
        raise no_address from error
    if url.scheme not in ("http", "https") or not url.host:
        raise no_address
    return url


def _body(response: "httpx.Response") -> bytes:
    body, until = bytearray(), time.monotonic() + _LONGEST_ANSWER
    for chunk in response.iter_bytes():
        body += chunk
        if len(body) > _LARGEST_ANSWER:
            raise PageTooLarge(f"{redact_url(response.url)}: one answer has more than {_LARGEST_ANSWER // _MB} MB")
        if time.monotonic() > until:
            raise PageTooLarge(f"{redact_url(response.url)}: one answer takes more than {_LONGEST_ANSWER:.0f} s")
    return bytes(body)


def _posts(response: "httpx.Response", body: bytes) -> list[Any]:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _no_json(response, body) from error
    fields = content if isinstance(content, dict) else {}
    if response.status_code != 200 or fields.get("error"):
        raise _refusal(response, _words(fields.get("error") or ""))
    posts = fields.get("data")
    if not isinstance(posts, list):
        raise InputError(f"{redact_url(response.url)}: answers without posts; is --base-url like {URL}?")
    return posts


def _refusal(response: "httpx.Response", words: str) -> Exception:
    status = response.status_code
    reason = f"{redact_url(response.url)}: {words or 'no reason given'} ({status})"
    if status == 429:
        pause = _retry_after(response.headers)
        later = f", and asks to wait {pause:.0f} s" if pause > _LONGEST_PAUSE else ""
        return TransientError(f"{reason}: too many requests{later}", pause=pause)
    if _TOO_MUCH.search(words):
        return PageTooLarge(reason)
    if status == 408 or status >= 500 or _LATER.search(words):
        return TransientError(reason)
    return MissingError(f"{reason}; check --subreddit, --after, --before and --base-url")


def _no_json(response: "httpx.Response", body: bytes) -> Exception:
    """A web page where JSON should be, of Cloudflare before the API or of a network with a login; else a cut answer."""
    where, status = redact_url(response.url), response.status_code
    if status in (408, 429) or status >= 500:
        return _refusal(response, _page_title(body))
    if body.lstrip().startswith(b"<") or "html" in response.headers.get("content-type", ""):
        whose = "Cloudflare's" if "cloudflare" in response.headers.get("server", "").lower() else "a web page"
        return MissingError(
            f"{where}: {whose} '{_page_title(body)}' ({status}) instead of JSON; "
            "open the address in a browser to see why, or run the same command later or from another network"
        )
    if status != 200:
        return _refusal(response, "")
    return TransientError(f"{where}: the answer is no whole JSON")


def _page_title(body: bytes) -> str:
    found = _TITLE.search(body[:100_000])
    return _words(found[1].decode(errors="replace")) if found else ""


def _words(text: object) -> str:
    """One line that does nothing to a terminal."""
    words = " ".join(str(text).split())
    return "".join(character for character in words if character.isprintable())[:200]


def _rate_limit(headers: Mapping[str, str]) -> float:
    """How many seconds the rate limit asks to wait for."""
    remaining = headers.get("x-ratelimit-remaining", "")
    if not re.fullmatch(r"-?[0-9]{1,9}(\.[0-9]*)?", remaining) or float(remaining) >= 1:
        return 0
    return _first(headers, "x-ratelimit-reset", "x-ratelimit-reset-at")


def _retry_after(headers: Mapping[str, str]) -> float:
    return _first(headers, "retry-after", "x-ratelimit-reset", "x-ratelimit-reset-at")


def _first(headers: Mapping[str, str], *names: str) -> float:
    now = _time(headers.get("date", "")) or time.time()
    found = (_seconds(headers.get(name, ""), now) for name in names)
    return next((seconds for seconds in found if seconds is not None), _USUAL_RESET)


def _seconds(written: str, now: float) -> float | None:
    """Of a number of seconds, or of a time: in Unix seconds or milliseconds, as ISO 8601 or as HTTP writes it."""
    if not re.fullmatch(r"[0-9]{1,15}(\.[0-9]*)?", written):
        moment = _time(written)
        return None if moment is None else max(0, moment - now)
    number = float(written)
    if number < 1e8:
        return number
    return max(0, (number if number < 1e11 else number / 1000) - now)


def _time(written: str) -> float | None:
    for parse in (datetime.fromisoformat, email.utils.parsedate_to_datetime):
        try:
            moment = parse(written)
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            continue
    return None
