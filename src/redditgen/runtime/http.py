"""Requests to servers that may be busy, slow or gone: each failure becomes one line, and what passes is waited for."""

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
_LONGEST_PAUSE = 30.0  # seconds; who is asked to wait for longer had better come back
_CONNECT, _READ = 20.0, 60.0  # seconds
# Not urllib.parse: it raises errors that quote what it can't parse.
_SECRETS = re.compile(r"^([^/?#]*//)[^/?#]*@|[?#].*", re.DOTALL)
_BUSY = frozenset({408, 429, 500, 502, 503, 504})

_log = logging.getLogger(__name__)


class TransientError(Exception):
    """A failure that another try may mend; `pause` is how many seconds the server asks to wait."""

    def __init__(self, reason: str, *, pause: float = 0, connected: bool = True) -> None:
        super().__init__(reason)
        self.pause, self.connected = pause, connected


class RetryPolicy:
    """How often and how long to wait for a failure to pass: `longest` is the most seconds that a server may ask for."""

    def __init__(self, pauses: Sequence[float] = _PAUSES, longest: float = _LONGEST_PAUSE) -> None:
        self._pauses, self._longest = list(pauses), longest

    def wait(self, failure: TransientError, giving_up: str) -> None:
        """Wait before the next try; raises MissingError with the message `giving_up` where there should be none."""
        if not self._pauses or failure.pause > self._longest:
            raise MissingError(giving_up) from failure
        pause = max(self._pauses.pop(0), failure.pause)
        _log.info("%s; trying again in %.0f s", failure, pause)
        time.sleep(pause)


@contextmanager
def open_client() -> "Iterator[httpx.Client]":
    """Connections that follow redirects and take the proxy and the certificates that the environment names."""
    import httpx

    timeout = httpx.Timeout(_READ, connect=_CONNECT)
    # Compressed answers have other lengths and ranges than the file.
    headers = {"Accept-Encoding": "identity", "User-Agent": f"redditgen/{__version__}"}
    try:
        connections = httpx.Client(timeout=timeout, headers=headers, follow_redirects=True)
    except (ValueError, OSError, ImportError) as error:
        raise UsageError(
            "the environment names a proxy (HTTPS_PROXY, HTTP_PROXY, ALL_PROXY) or certificates (SSL_CERT_FILE, "
            f"SSL_CERT_DIR) that can't be used ({type(error).__name__}); correct or unset it"
        ) from error
    with connections, loggers_silenced("httpx", "httpcore"):  # who log whole addresses
        yield connections


def url_below(base: str, parts: Sequence[str]) -> "httpx.URL":
    """The address of a file below another address, whose query (a key, maybe) is kept."""
    import httpx

    try:
        url = httpx.URL(base)
        return url.copy_with(path="/".join([url.path.rstrip("/"), *parts]))
    except httpx.InvalidURL as error:
        raise UsageError("--base-url is no address; it must be like https://mirror.example.org/gpt-2") from error


def redact_url(url: "httpx.URL | str") -> str:
    """An address for messages, without what may be a secret: user, password, query."""
    return _SECRETS.sub(r"\1", str(url))


@contextmanager
def open_response(
    client: "httpx.Client", method: str, url: "httpx.URL", expected: Container[int], **headers: str
) -> "Iterator[httpx.Response]":
    """An answer with an expected status, to be read in the block; raises Passing or MissingError for all else."""
    import httpx

    try:
        with client.stream(method, url, headers=headers) as response:
            if response.status_code not in expected:
                raise _unexpected(response, url)
            yield response
    except (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError) as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise MissingError(
                f"{redact_url(url)}: the server's certificate is not trusted ({_words(error)}); "
                "name your network's certificates with SSL_CERT_FILE, or another place with --base-url"
            ) from error
        connected = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
        raise TransientError(f"{redact_url(url)}: {_words(error)}", connected=connected) from error
    except httpx.HTTPError as error:
        raise MissingError(
            f"{redact_url(url)}: {_words(error)}; check the connection, the proxy and --base-url"
        ) from error


def _unexpected(response: "httpx.Response", url: "httpx.URL") -> Exception:
    where, status = redact_url(url), response.status_code
    if status in _BUSY:
        asked = response.headers.get("retry-after", "")
        pause = float(asked) if re.fullmatch(r"[0-9]{1,9}", asked) else 0  # a date is not waited for
        later = f" and asks to wait {asked} s" if pause > _LONGEST_PAUSE else ""
        return TransientError(f"{where}: the server is busy or out of order ({status}){later}", pause=pause)
    if status in (401, 403, 407):
        return MissingError(
            f"{where}: not allowed ({status}); check --base-url, or ask who runs the server or the proxy"
        )
    if status in (404, 410):
        return MissingError(f"{where}: not there ({status}); check --base-url, below which models/NAME/ must lie")
    return MissingError(f"{where}: an unexpected answer ({status}); check --base-url")


def _words(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
