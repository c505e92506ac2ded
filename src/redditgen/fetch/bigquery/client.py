"""Google's clients for BigQuery, with the user's login or of an emulator, and how long they try again."""

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

# The first is what Google's own client reads; for the Storage Read API Google has none.
EMULATOR_VARIABLE, STORAGE_EMULATOR_VARIABLE = "BIGQUERY_EMULATOR_HOST", "BIGQUERY_STORAGE_EMULATOR_HOST"

_log = logging.getLogger(__name__)


class Connection:
    """The login and the client made with it; opens no connection before the first request."""

    def __init__(self, project: str | None, location: str) -> None:
        """Raises MissingError where no project is known, and Google's exceptions where there is no login."""
        from google.cloud.bigquery import Client

        options: dict[str, Any] = {}
        if host := os.environ.get(EMULATOR_VARIABLE):
            project = project or os.environ.get("GOOGLE_CLOUD_PROJECT") or "redditgen"
            options["api_endpoint"] = host if "://" in host else f"http://{host}"
            _log.info("BigQuery: asking the emulator that %s names", EMULATOR_VARIABLE)
        self._credentials, named = _login(is_real=not host)
        if not (project or named):
            raise errors.no_project_error()
        self.client = Client(project or named, self._credentials, location=location, client_options=options)

    @contextmanager
    def storage(self) -> "Iterator[BigQueryReadClient | None]":
        """A client of the Storage Read API; None for an emulator that no variable names the address of."""
        from google.cloud.bigquery_storage import BigQueryReadClient

        if not os.environ.get(EMULATOR_VARIABLE):
            client = BigQueryReadClient(credentials=self._credentials)
        elif address := os.environ.get(STORAGE_EMULATOR_VARIABLE):
            client = BigQueryReadClient(transport=_insecure(address))
        else:
            yield None
            return
        try:
            yield client
        finally:
            client.transport.close()


def _login(is_real: bool) -> tuple[Any, str | None]:
    """Credentials, and the project that they or the environment name."""
    import google.auth
    from google.auth.credentials import AnonymousCredentials
    from google.cloud.bigquery import Client

    if not is_real:
        return AnonymousCredentials(), None
    # Last it asks whether this is one of Google's own machines; three times where nobody answers, which takes 13 s.
    os.environ.setdefault("GCE_METADATA_DETECT_RETRIES", "1")
    with warnings.catch_warnings(), loggers_silenced("google.auth"):
        # Of a login without a project for quotas: the one that runs the job has them.
        warnings.filterwarnings("ignore", "Your application has authenticated using end user credentials")
        try:
            credentials, project = google.auth.default(scopes=Client.SCOPE)
        except (OSError, ValueError, TypeError, AttributeError) as error:  # of a file that is not even of its kind
            raise errors.no_credentials_error() from error
    return credentials, project


def _insecure(address: str) -> Any:
    import grpc
    from google.cloud.bigquery_storage_v1.services.big_query_read.transports import BigQueryReadGrpcTransport

    # The emulator sends a whole result as one message.
    channel = grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)])
    return BigQueryReadGrpcTransport(channel=channel)


def logged_retry(patience: float) -> "Retry":
    """Google's rules of what is tried again, for so many seconds, and with a line in the log when that begins."""
    from google.cloud.bigquery import DEFAULT_RETRY

    rules = DEFAULT_RETRY.with_timeout(patience)
    is_said = False

    def say(error: Exception) -> None:
        nonlocal is_said
        if not is_said:
            why = errors.reason_of(error) or type(error).__name__
            _log.info("BigQuery: %s; trying again for up to %.0f s", why, patience)
        is_said = True

    # All that Google's clients do with it is to call it with the function to try.
    return cast("Retry", lambda function: rules(function, on_error=say))
