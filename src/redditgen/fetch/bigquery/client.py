"""Creates Google's clients for BigQuery, with the user's login or for an emulator, and the rules of their retries."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from redditgen.fetch.bigquery import errors
from redditgen.runtime.library_logs import loggers_silenced

if TYPE_CHECKING:
    from google.api_core.retry import Retry
    from google.cloud.bigquery_storage import BigQueryReadClient

# Environment variables. Google's own client also reads the first; Google has none for the Storage Read API.
EMULATOR_VARIABLE, STORAGE_EMULATOR_VARIABLE = "BIGQUERY_EMULATOR_HOST", "BIGQUERY_STORAGE_EMULATOR_HOST"

_log = logging.getLogger(__name__)


class Connection:
    """The user's login and the clients that use it; connects only at the first request."""

    def __init__(self, project: str | None, location: str) -> None:
        """Raises MissingError where no project is known, and Google's exceptions where there is no login."""
        from google.cloud.bigquery import Client

        options: dict[str, Any] = {}
        if host := os.environ.get(EMULATOR_VARIABLE):
            project = project or os.environ.get("GOOGLE_CLOUD_PROJECT") or "redditgen"
            options["api_endpoint"] = host if "://" in host else f"http://{host}"
            _log.info("BigQuery: asking the emulator that %s names", EMULATOR_VARIABLE)
        self._credentials, login_project = _find_credentials(is_real=not host)
        if not (project or login_project):
            raise errors.no_project_error()
        self.client = Client(project or login_project, self._credentials, location=location, client_options=options)

    @contextmanager
    def storage(self) -> "Iterator[BigQueryReadClient | None]":
        """Yield a client of the Storage Read API; None for an emulator where STORAGE_EMULATOR_VARIABLE is not set."""
        from google.cloud.bigquery_storage import BigQueryReadClient

        if not os.environ.get(EMULATOR_VARIABLE):
            client = BigQueryReadClient(credentials=self._credentials)
        elif address := os.environ.get(STORAGE_EMULATOR_VARIABLE):
            client = BigQueryReadClient(transport=_unencrypted_transport(address))
        else:
            yield None
            return
        try:
            yield client
        finally:
            client.transport.close()


def _find_credentials(is_real: bool) -> tuple[Any, str | None]:
    """Return credentials, and the project that they or the environment name."""
    import google.auth
    from google.auth.credentials import AnonymousCredentials
    from google.cloud.bigquery import Client

    if not is_real:
        return AnonymousCredentials(), None
    # The library last asks a server whether this is one of Google's machines; without an answer, three tries take 13 s.
    os.environ.setdefault("GCE_METADATA_DETECT_RETRIES", "1")
    with warnings.catch_warnings(), loggers_silenced("google.auth"):
        # The warning concerns a login without a project for quotas, but the project that runs the job provides them.
        warnings.filterwarnings("ignore", "Your application has authenticated using end user credentials")
        try:
            credentials, project = google.auth.default(scopes=Client.SCOPE)
        except (OSError, ValueError, TypeError, AttributeError) as error:  # also where the file is malformed
            raise errors.no_credentials_error() from error
    return credentials, project


def _unencrypted_transport(address: str) -> Any:
    import grpc
    from google.cloud.bigquery_storage_v1.services.big_query_read.transports import BigQueryReadGrpcTransport

    # The emulator sends a whole result as one message, which can exceed gRPC's limit.
    channel = grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)])
    return BigQueryReadGrpcTransport(channel=channel)


def logged_retry(patience: float) -> "Retry":
    """Return Google's default rules for retries, for `patience` seconds in all; the first retry of a call is logged."""
    from google.cloud.bigquery import DEFAULT_RETRY

    rules = DEFAULT_RETRY.with_timeout(patience)
    is_logged = False

    def log_once(error: Exception) -> None:
        nonlocal is_logged
        if not is_logged:
            reason = errors.reason_of(error) or type(error).__name__
            _log.info("BigQuery: %s; trying again for up to %.0f s", reason, patience)
        is_logged = True

    # Google's clients use a Retry only by calling it with the function to try, so any such callable works.
    return cast("Retry", lambda function: rules(function, on_error=log_once))
