"""Maps the errors of BigQuery, Google's client and the network to redditgen's: one line with the cause and the remedy.

BigQuery states a reason in each response. Google's exception classes match it only partly, so the reason decides. An
exception's text is never quoted unchanged: it may hold an account's name, a path or a token.
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

_KEY_FILE_VARIABLE = "GOOGLE_APPLICATION_CREDENTIALS"
_MAX_MESSAGE = 400  # characters of BigQuery's message
_ACCOUNT = re.compile(r"[\w.+'-]+@[\w-]+(?:\.[\w-]+)+|\bprincipal(?:Set)?://\S+")


@contextmanager
def map_errors(request: RequestContext) -> Iterator[None]:
    """Raise each error of Google's client and of the network in the block as one of redditgen's errors."""
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError

    try:
        yield
    except (GoogleAPIError, GoogleAuthError, OSError) as error:
        raise explain_error(error, request) from error


def explain_error(error: BaseException, request: RequestContext) -> RedditgenError:
    """Return redditgen's error for one of Google's client or of the network."""
    from google.api_core.exceptions import GoogleAPICallError, RetryError
    from google.auth.exceptions import GoogleAuthError

    if isinstance(error, RetryError) and error.cause:
        return explain_error(error.cause, request)
    if isinstance(error, GoogleAuthError):
        return _login_error(error, request)
    if isinstance(error, GoogleAPICallError):
        return _service_error(error, request)
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


def _login_error(error: Exception, request: RequestContext) -> RedditgenError:
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
            f"BigQuery: the login has expired, or was taken back{f' ({code[0]})' if code else ''}; {_login_advice()}"
            f"{request.go_on()}"
        )
    return _refused_login_error(request)


def no_credentials_error() -> MissingError:
    """Return the error for a login that does not exist, or whose file can't be read."""
    key_file = os.environ.get(_KEY_FILE_VARIABLE)
    if not key_file:
        return MissingError(
            f"BigQuery: no login of a Google account; log in with: {LOGIN_COMMAND}, {LOCAL_ALTERNATIVE}"
        )
    problem = "holds no credentials that Google's library can read" if Path(key_file).exists() else "is not there"
    return MissingError(
        f"BigQuery: the file that {_KEY_FILE_VARIABLE} names {problem}; correct it, or unset it and log in with: "
        f"{LOGIN_COMMAND}"
    )


def _refused_login_error(request: RequestContext) -> MissingError:
    return MissingError(f"BigQuery: the login was refused; {_login_advice()}{request.go_on()}")


def _login_advice() -> str:
    """Return the advice for logging in again, with a key file or as a user."""
    if os.environ.get(_KEY_FILE_VARIABLE):
        return f"name a key that is valid with {_KEY_FILE_VARIABLE}, or unset it and log in with: {LOGIN_COMMAND}"
    return f"log in again: {LOGIN_COMMAND}"


# The service


def _service_error(error: "GoogleAPICallError", request: RequestContext) -> RedditgenError:
    reason, message = reason_of(error), _service_message(error)
    if explain := EXPLANATIONS.get(reason):
        return explain(message, request)
    if error.code == 401:
        return _refused_login_error(request)
    if reason in TRANSIENT_REASONS or (error.code or 0) >= 500 or error.code == 429:
        return RedditgenError(
            f"BigQuery: busy or out of order ({reason or error.code}), tried for {request.patience:.0f} s; try again "
            f"later{request.go_on()}"
        )
    return RedditgenError(f"BigQuery: {message} ({reason or error.code}); project {request.project}, {request.tables}")


def reason_of(error: BaseException) -> str:
    """Return the reason that BigQuery states, such as notFound; '' where there is none, as in a proxy's response."""
    first = next(iter(getattr(error, "errors", ())), None)
    return str(first.get("reason", "")) if isinstance(first, Mapping) else ""


def _service_message(error: "GoogleAPICallError") -> str:
    """Return BigQuery's message on one line, without accounts' names."""
    first = next(iter(error.errors), None)
    message = str(first.get("message", "")) if isinstance(first, Mapping) else ""
    message = _ACCOUNT.sub("(account)", strip_colours(message))
    return message[:_MAX_MESSAGE].rstrip(". ") or type(error).__name__
