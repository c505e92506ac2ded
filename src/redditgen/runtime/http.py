"""HTTP requests to servers that may be busy, slow or unreachable.

Each failure becomes an error with a message of one line. A failure that may pass, such as a timeout or status 503, is
a TransientError; a RetryPolicy waits before the next try.
"""

import logging
import re
import time
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from redditgen import __version__
from redditgen.errors import MissingError, UsageError
from redditgen.runtime.library_logs import loggers_silenced

if TYPE_CHECKING:
    import httpx

_PAUSES = (1.0, 2.0, 4.0)  # seconds before the second, third and fourth try
_LONGEST_PAUSE = 30.0  # seconds; where a server asks for a longer wait, the user is told to try again later
_CONNECT, _READ = 20.0, 60.0  # timeouts, in seconds
# Not urllib.parse, whose errors quote the text that it can't parse, secrets included.
_SECRETS = re.compile(r"^([^/?#]*//)[^/?#]*@|[?#].*", re.DOTALL)
_TRANSIENT_STATUSES = frozenset({408, 429, 500, 502, 503, 504})

_log = logging.getLogger(__name__)


class TransientError(Exception):
    """A failure that may pass, so that the request should be retried.

    `pause` is the number of seconds that the server asks to wait; `connected` is false where there was no connection.
    """

    def __init__(self, reason: str, *, pause: float = 0, connected: bool = True) -> None:
        super().__init__(reason)
        self.pause, self.connected = pause, connected


class RetryPolicy:
    """How often to retry and how long to wait: seconds before each further try, and the longest wait to accept.

    `longest` is in seconds; no retry follows where the server asks for a longer wait.
    """

    def __init__(self, pauses: Sequence[float] = _PAUSES, longest: float = _LONGEST_PAUSE) -> None:
        self._pauses, self._longest = list(pauses), longest

    def wait(self, failure: TransientError, giving_up: str) -> None:
        """Sleep until the next try. Raises MissingError with the message `giving_up` where there should be none."""
        if not self._pauses or failure.pause > self._longest:
            raise MissingError(giving_up) from failure
        pause = max(self._pauses.pop(0), failure.pause)
        _log.info("%s; trying again in %.0f s", failure, pause)
        time.sleep(pause)


@contextmanager
def open_client() -> "Iterator[httpx.Client]":
    """Open an HTTP client that follows redirects and uses the proxy and certificates that the environment names.

    Raises UsageError where these can't be used.
    """
    import httpx

    timeout = httpx.Timeout(_READ, connect=_CONNECT)
    # A compressed response would have other lengths and ranges than the file.
    headers = {"Accept-Encoding": "identity", "User-Agent": f"redditgen/{__version__}"}
    try:
        client = httpx.Client(timeout=timeout, headers=headers, follow_redirects=True)
    except (ValueError, OSError, ImportError) as error:
        raise UsageError(
            "the environment names a proxy (HTTPS_PROXY, HTTP_PROXY, ALL_PROXY) or certificates (SSL_CERT_FILE, "
            f"SSL_CERT_DIR) that can't be used ({type(error).__name__}); correct or unset it"
        ) from error
    with client, loggers_silenced("httpx", "httpcore"):  # they log URLs with their secrets
        yield client


def url_below(base: str, parts: Sequence[str]) -> "httpx.URL":
    """Append path segments to a URL, keeping its query, which may hold a key. Raises UsageError for an invalid URL."""
    import httpx

    try:
        url = httpx.URL(base)
        return url.copy_with(path="/".join([url.path.rstrip("/"), *parts]))
    except httpx.InvalidURL as error:
        raise UsageError("--base-url is no address; it must be like https://mirror.example.org/gpt-2") from error


def redact_url(url: "httpx.URL | str") -> str:
    """Return a URL without the parts that may be secret: user, password, query and fragment."""
    return _SECRETS.sub(r"\1", str(url))


@contextmanager
def open_response(
    client: "httpx.Client", method: str, url: "httpx.URL", expected: Container[int], **headers: str
) -> "Iterator[httpx.Response]":
    """Send a request and yield the response, which the block reads, if its status is in `expected`.

    `headers` are headers of the request. Raises TransientError for failures that may pass, MissingError for all others.
    """
    import httpx

    try:
        with client.stream(method, url, headers=headers) as response:
            if response.status_code not in expected:
                raise _status_error(response, url)
            yield response
    except (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError) as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise MissingError(
                f"{redact_url(url)}: the server's certificate is not trusted ({_error_text(error)}); "
                "name your network's certificates with SSL_CERT_FILE, or another place with --base-url"
            ) from error
        connected = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
        raise TransientError(f"{redact_url(url)}: {_error_text(error)}", connected=connected) from error
    except httpx.HTTPError as error:
        raise MissingError(
            f"{redact_url(url)}: {_error_text(error)}; check the connection, the proxy and --base-url"
        ) from error


def _status_error(response: "httpx.Response", url: "httpx.URL") -> Exception:
    """Return the error for a response with an unexpected status."""
    where, status = redact_url(url), response.status_code
    if status in _TRANSIENT_STATUSES:
        retry_after = response.headers.get("retry-after", "")
        pause = float(retry_after) if re.fullmatch(r"[0-9]{1,9}", retry_after) else 0  # Retry-After may also be a date
        later = f" and asks to wait {retry_after} s" if pause > _LONGEST_PAUSE else ""
        return TransientError(f"{where}: the server is busy or out of order ({status}){later}", pause=pause)
    if status in (401, 403, 407):
        return MissingError(
            f"{where}: not allowed ({status}); check --base-url, or ask who runs the server or the proxy"
        )
    if status in (404, 410):
        return MissingError(f"{where}: not there ({status}); check --base-url, below which models/NAME/ must lie")
    return MissingError(f"{where}: an unexpected answer ({status}); check --base-url")


def _error_text(error: Exception) -> str:
    """Return the message of an error on one line, or its class where it has none."""
    return " ".join(str(error).split()) or type(error).__name__
