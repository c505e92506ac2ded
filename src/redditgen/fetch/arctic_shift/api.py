"""Requests posts from Arctic Shift's web API: one request at a time, with pauses between them, within its rate limit.

A page that is too large for the server is requested again with a smaller limit; other transient failures are retried
three times.

Documented (github.com/ArthurHeitmann/arctic_shift, api/README.md at 57b3e571): /api/posts/search takes subreddit,
after, before (Unix seconds, among others), sort=asc|desc by created_utc, and limit, 1 to 100 or `auto`, which gives 100
to 1000 "depending on the capacity of the server". X-RateLimit-Remaining is how many requests are left,
X-RateLimit-Reset when that number is reset; "a couple requests per second" are welcome. No account, no uptime
guarantee. Posts get their score and num_comments after 36 hours; before, they are 1 or 0.

Not documented, but observed by others:
- Errors are {"data": null, "error": "..."}. "Timeout. Maybe slow down a bit" comes with status 422, both where a page
  is too large for the database (issue 66: limit=50 passes where 100 doesn't) and where requests come too fast.
- X-RateLimit-Reset is in seconds, though some clients take it for a time; so both are understood.
- `after` includes the second that it names (arctic_shift_ui, src/lib/archiveStream.ts, the site's own download tool,
  which sends the same requests: whole posts, limit=auto, sort=asc), `before` doesn't; this module relies on neither.
- `fields` refuses names it does not know (status 400), and of the flags knows only over_18: so whole posts are
  requested, compressed with gzip.
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
_MIN_LIMIT = 25  # the smallest limit of a page, where more posts are too many for the server

PAUSE = 1.0  # seconds between requests
_RETRY_PAUSES = (2.0, 10.0, 60.0)  # seconds before the second, third and fourth try
_MAX_PAUSE = 900.0  # seconds; where the server asks for more, the request fails
_DEFAULT_RESET = 60.0  # seconds, where the server does not state them
_LONGEST_ANSWER = 120.0  # seconds until a response must be complete

_MB = 1 << 20
_LARGEST_ANSWER = 32 * _MB  # bytes; a page of 1000 usual posts has 2 to 5 MB

_TIMEOUT_ERROR = re.compile(r"time[- ]?d?[- ]?out|slow down", re.IGNORECASE)
_BUSY_ERROR = re.compile(r"maintenance|too many requests", re.IGNORECASE)
_HTML_TITLE = re.compile(rb"<title[^>]*>(.*?)</title", re.IGNORECASE | re.DOTALL)

_log = logging.getLogger(__name__)


class PageTooLarge(TransientError):
    """A failure that a smaller page may avoid."""


@dataclass(frozen=True)
class Page:
    """The posts of one response, in ascending order of created_utc if the server sorts as requested.

    If there are at least `full` posts, there may be more on the next page.
    """

    posts: list[Any]
    full: int


class Api:
    """A client of the API that keeps the pauses and the size of pages from one request to the next."""

    def __init__(self, client: "httpx.Client", base_url: str) -> None:
        self._client, self._url = client, search_url(base_url)
        self._next_request_at = 0.0  # the earliest time of the next request, by time.monotonic()
        self._max_limit = MAX_PAGE
        self._has_answered = False

    def page(self, query: Mapping[str, str | int], *, wanted: int, known: int, advice: str) -> Page:
        """Request the posts of a query: up to `wanted` new ones, besides the `known` ones that the API returns first.

        Raises MissingError, whose message ends in the `advice`, where no try succeeds.
        """
        retries = RetryPolicy(_RETRY_PAUSES, _MAX_PAUSE)
        while True:
            limit = min(wanted + known, max(self._max_limit, known + _MIN_LIMIT))
            try:
                self._wait_for_rate_limit(advice)
                posts = self._request_posts({**query, "sort": "asc", "limit": limit if limit <= MIN_PAGE else "auto"})
                return Page(posts, min(limit, MIN_PAGE))
            except TransientError as failure:
                message = f"{failure}; {advice}"
                if not failure.connected and not self._has_answered:
                    raise MissingError(message) from failure
                if isinstance(failure, PageTooLarge):
                    self._max_limit = max(_MIN_LIMIT, min(MIN_PAGE, limit // 2))
                retries.wait(failure, message)

    def _wait_for_rate_limit(self, advice: str) -> None:
        pause = self._next_request_at - time.monotonic()
        if pause > _MAX_PAUSE:
            raise MissingError(f"{redact_url(self._url)}: its rate limit is used up for {pause:.0f} s; {advice}")
        if pause > 2 * PAUSE:
            _log.info("%s: its rate limit is used up; waiting %.0f s", redact_url(self._url), pause)
        if pause > 0:
            time.sleep(pause)

    def _request_posts(self, query: Mapping[str, str | int]) -> list[Any]:
        url = self._url.copy_merge_params(dict(query))
        headers = {"Accept": "application/json", "Accept-Encoding": "gzip"}
        with open_response(self._client, "GET", url, range(200, 600), **headers) as response:
            self._has_answered = True
            self._next_request_at = time.monotonic() + _rate_limit(response.headers)
            try:
                body = _read_body(response)
            finally:
                self._next_request_at = max(self._next_request_at, time.monotonic() + PAUSE)
            return _parse_posts(response, body)


def search_url(base_url: str) -> "httpx.URL":
    """Return the address for searching posts; raises UsageError where `base_url` is not an address."""
    invalid = UsageError(f"--base-url is no address; it must be like {URL}")
    try:
        url = url_below(base_url, ["api", "posts", "search"])
    except UsageError as error:
        raise invalid from error
    if url.scheme not in ("http", "https") or not url.host:
        raise invalid
    return url


def _read_body(response: "httpx.Response") -> bytes:
    body, deadline = bytearray(), time.monotonic() + _LONGEST_ANSWER
    for chunk in response.iter_bytes():
        body += chunk
        if len(body) > _LARGEST_ANSWER:
            raise PageTooLarge(f"{redact_url(response.url)}: one answer has more than {_LARGEST_ANSWER // _MB} MB")
        if time.monotonic() > deadline:
            raise PageTooLarge(f"{redact_url(response.url)}: one answer takes more than {_LONGEST_ANSWER:.0f} s")
    return bytes(body)


def _parse_posts(response: "httpx.Response", body: bytes) -> list[Any]:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _not_json_error(response, body) from error
    fields = content if isinstance(content, dict) else {}
    if response.status_code != 200 or fields.get("error"):
        raise _refusal_error(response, _one_line(fields.get("error") or ""))
    posts = fields.get("data")
    if not isinstance(posts, list):
        raise InputError(f"{redact_url(response.url)}: answers without posts; is --base-url like {URL}?")
    return posts


def _refusal_error(response: "httpx.Response", words: str) -> Exception:
    status = response.status_code
    reason = f"{redact_url(response.url)}: {words or 'no reason given'} ({status})"
    if status == 429:
        pause = _retry_after(response.headers)
        long_pause = f", and asks to wait {pause:.0f} s" if pause > _MAX_PAUSE else ""
        return TransientError(f"{reason}: too many requests{long_pause}", pause=pause)
    if _TIMEOUT_ERROR.search(words):
        return PageTooLarge(reason)
    if status == 408 or status >= 500 or _BUSY_ERROR.search(words):
        return TransientError(reason)
    return MissingError(f"{reason}; check --subreddit, --after, --before and --base-url")


def _not_json_error(response: "httpx.Response", body: bytes) -> Exception:
    """Return the error for a response that is not JSON.

    It is a web page, of Cloudflare in front of the API or of a network with a login, or else a truncated response.
    """
    url, status = redact_url(response.url), response.status_code
    if status in (408, 429) or status >= 500:
        return _refusal_error(response, _page_title(body))
    if body.lstrip().startswith(b"<") or "html" in response.headers.get("content-type", ""):
        page_kind = "Cloudflare's" if "cloudflare" in response.headers.get("server", "").lower() else "a web page"
        return MissingError(
            f"{url}: {page_kind} '{_page_title(body)}' ({status}) instead of JSON; "
            "open the address in a browser to see why, or run the same command later or from another network"
        )
    if status != 200:
        return _refusal_error(response, "")
    return TransientError(f"{url}: the answer is no whole JSON")


def _page_title(body: bytes) -> str:
    match = _HTML_TITLE.search(body[:100_000])
    return _one_line(match[1].decode(errors="replace")) if match else ""


def _one_line(text: object) -> str:
    """Return up to 200 characters of the text on one line, without control characters, which affect a terminal."""
    words = " ".join(str(text).split())
    return "".join(character for character in words if character.isprintable())[:200]


def _rate_limit(headers: Mapping[str, str]) -> float:
    """Return how many seconds the rate limit asks to wait."""
    remaining = headers.get("x-ratelimit-remaining", "")
    if not re.fullmatch(r"-?[0-9]{1,9}(\.[0-9]*)?", remaining) or float(remaining) >= 1:
        return 0
    return _first_delay(headers, "x-ratelimit-reset", "x-ratelimit-reset-at")


def _retry_after(headers: Mapping[str, str]) -> float:
    return _first_delay(headers, "retry-after", "x-ratelimit-reset", "x-ratelimit-reset-at")


def _first_delay(headers: Mapping[str, str], *names: str) -> float:
    """Return the seconds to wait that the first valid one of the named headers states, or _DEFAULT_RESET."""
    now = _parse_time(headers.get("date", "")) or time.time()
    delays = (_parse_delay(headers.get(name, ""), now) for name in names)
    return next((seconds for seconds in delays if seconds is not None), _DEFAULT_RESET)


def _parse_delay(text: str, now: float) -> float | None:
    """Return the seconds from `now` (Unix seconds) that a header states, or None where it is malformed.

    It may be a number of seconds, or a time: in Unix seconds or milliseconds, in ISO 8601 or in HTTP's format.
    """
    if not re.fullmatch(r"[0-9]{1,15}(\.[0-9]*)?", text):
        moment = _parse_time(text)
        return None if moment is None else max(0, moment - now)
    number = float(text)
    if number < 1e8:
        return number
    return max(0, (number if number < 1e11 else number / 1000) - now)


def _parse_time(text: str) -> float | None:
    """Return the Unix seconds of a time in ISO 8601 or HTTP's format, or None where it is malformed."""
    for parse in (datetime.fromisoformat, email.utils.parsedate_to_datetime):
        try:
            moment = parse(text)
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            continue
    return None
