"""What BigQuery, Google's client and the network raise, as redditgen's errors: one line with the cause and the remedy.

BigQuery names a reason in each answer; Google's exception classes follow it only partly, so the reason decides.
What was raised is never quoted as it is: it may hold an account's name, a path or a token.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from redditgen.errors import MissingError, RedditgenError
from redditgen.fetch.bigquery.reasons import EXPLANATIONS, LOCAL_ALTERNATIVE, RequestContext
from redditgen.fetch.sql.statement import strip_colours

if TYPE_CHECKING:
    from google.api_core.exceptions import GoogleAPICallError

TRANSIENT_REASONS = frozenset(
    {"rateLimitExceeded", "backendError", "internalError", "badGateway", "jobRateLimitExceeded"}
)
LOGIN_COMMAND = "gcloud auth application-default login"

_KEY_FILE = "GOOGLE_APPLICATION_CREDENTIALS"
_LONGEST = 400  # characters of BigQuery's own words
_ACCOUNT = re.compile(r"[\w.+'-]+@[\w-]+(?:\.[\w-]+)+|\bprincipal(?:Set)?://\S+")


@contextmanager
def map_errors(request: RequestContext) -> Iterator[None]:
    """Inside the block every error of Google's client and of the network is one of redditgen's."""
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError

    try:
        yield
    except (GoogleAPIError, GoogleAuthError, OSError) as error:
        raise explain_error(error, request) from error


def explain_error(error: BaseException, request: RequestContext) -> RedditgenError:
    from google.api_core.exceptions import GoogleAPICallError, RetryError
    from google.auth.exceptions import GoogleAuthError

    if isinstance(error, RetryError) and error.cause:
        return explain_error(error.cause, request)
    if isinstance(error, GoogleAuthError):
        return _of_login(error, request)
    if isinstance(error, GoogleAPICallError):
        return _of_service(error, request)
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return RedditgenError(
            "BigQuery: the server's certificate is not trusted; name your network's certificates with "
            "REQUESTS_CA_BUNDLE, " + LOCAL_ALTERNATIVE
        )
    return RedditgenError(
        f"BigQuery: no connection ({type(error).__name__}), tried for {request.patience:.0f} s; check the network and "
        f"the proxy, {LOCAL_ALTERNATIVE}{request.go_on()}"
    )


# The login


def no_project_error() -> MissingError:
    return MissingError(
        "BigQuery: no project is known that pays for the query; name yours with --project or GOOGLE_CLOUD_PROJECT, "
        + LOCAL_ALTERNATIVE
    )


def _of_login(error: Exception, request: RequestContext) -> RedditgenError:
    from google.auth.exceptions import DefaultCredentialsError, InvalidOperation, RefreshError, TransportError

    if isinstance(error, TransportError):
        return RedditgenError(
            "BigQuery: no connection to Google's login server (oauth2.googleapis.com), tried for "
            f"{request.patience:.0f} s; check the network and the proxy, {LOCAL_ALTERNATIVE}{request.go_on()}"
        )
    if isinstance(error, DefaultCredentialsError) and not isinstance(error, InvalidOperation):
        return no_credentials_error()
    if isinstance(error, RefreshError):
        code = re.search(r"\binvalid_[a-z]+", str(error))
        return MissingError(
            f"BigQuery: the login has expired, or was taken back{f' ({code[0]})' if code else ''}; {_again()}"
            f"{request.go_on()}"
        )
    return _refused(request)


def no_credentials_error() -> MissingError:
    """There is no login, or its file can't be read."""
    named = os.environ.get(_KEY_FILE)
    if not named:
        return MissingError(
            f"BigQuery: no login of a Google account; log in with: {LOGIN_COMMAND}, {LOCAL_ALTERNATIVE}"
        )
    what = "holds no credentials that Google's library can read" if Path(named).exists() else "is not there"
    return MissingError(
        f"BigQuery: the file that {_KEY_FILE} names {what}; correct it, or unset it and log in with: {LOGIN_COMMAND}"
    )


def _refused(request: RequestContext) -> MissingError:
    return MissingError(f"BigQuery: the login was refused; {_again()}{request.go_on()}")


def _again() -> str:
    """How to log in, by what the login is."""
    if os.environ.get(_KEY_FILE):
        return f"name a key that is valid with {_KEY_FILE}, or unset it and log in with: {LOGIN_COMMAND}"
    return f"log in again: {LOGIN_COMMAND}"


# The service


def _of_service(error: "GoogleAPICallError", request: RequestContext) -> RedditgenError:
    reason, said = reason_of(error), _said(error)
    if explain := EXPLANATIONS.get(reason):
        return explain(said, request)
    if error.code == 401:
        return _refused(request)
    if reason in TRANSIENT_REASONS or (error.code or 0) >= 500 or error.code == 429:
        return RedditgenError(
            f"BigQuery: busy or out of order ({reason or error.code}), tried for {request.patience:.0f} s; try again "
            f"later{request.go_on()}"
        )
    return RedditgenError(f"BigQuery: {said} ({reason or error.code}); project {request.project}, {request.tables}")


def reason_of(error: BaseException) -> str:
    """BigQuery's own word for what is wrong; empty where there is none, as in what a proxy answers."""
    first = next(iter(getattr(error, "errors", ())), None)
    return str(first.get("reason", "")) if isinstance(first, Mapping) else ""


def _said(error: "GoogleAPICallError") -> str:
    """BigQuery's own words on one line, without accounts' names."""
    first = next(iter(error.errors), None)
    words = str(first.get("message", "")) if isinstance(first, Mapping) else ""
    words = _ACCOUNT.sub("(account)", strip_colours(words))
    return words[:_LONGEST].rstrip(". ") or type(error).__name__
