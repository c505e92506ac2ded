"""Explains each of BigQuery's reasons for refusing a request, with the remedy."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from redditgen.errors import InputError, MissingError, RedditgenError
from redditgen.fetch.bigquery.cost import format_bytes

LOCAL_ALTERNATIVE = "or read local files: --from FILE"

_CONSOLE_URL = "https://console.cloud.google.com"


@dataclass
class RequestContext:
    """The request to BigQuery, as messages describe it."""

    project: str
    location: str
    tables: str
    max_bytes: int
    patience: float
    """How many seconds a failed request is retried."""
    job: str = ""
    nearest: Callable[[str], str] = lambda message: ""
    """Returns a text with the tables whose names are similar to the missing one in BigQuery's message, or ''."""

    def go_on(self) -> str:
        """Return the advice for reading the result of a job that may continue after the error, or ''."""
        return f"; if the job has started, --job {self.job} reads its result" if self.job else ""


def _access_denied(message: str, request: RequestContext) -> RedditgenError:
    return RedditgenError(
        f"BigQuery: {message}; either the account may not run jobs in project {request.project} (it needs the role "
        f"BigQuery Job User; another project: --project), or {request.tables} is hidden from it or not there"
    )


def _billing_disabled(message: str, request: RequestContext) -> RedditgenError:
    return RedditgenError(
        f"BigQuery: billing is not enabled for project {request.project}; enable it at {_CONSOLE_URL}/billing, "
        f"name another with --project, {LOCAL_ALTERNATIVE}"
    )


def _api_disabled(message: str, request: RequestContext) -> RedditgenError:
    return RedditgenError(
        f"BigQuery: its API is switched off in project {request.project}; switch it on at "
        f"{_CONSOLE_URL}/apis/library/bigquery.googleapis.com?project={request.project}"
    )


def _quota_exceeded(message: str, request: RequestContext) -> RedditgenError:
    if "free query bytes" in message:
        return RedditgenError(
            f"BigQuery: project {request.project} has used up the month's free 1 TiB; it is renewed on the first of "
            f"the next month, or enable billing at {_CONSOLE_URL}/billing, {LOCAL_ALTERNATIVE}"
        )
    return RedditgenError(
        f"BigQuery: {message} (quotaExceeded); wait, or raise project {request.project}'s quota at "
        f"{_CONSOLE_URL}/iam-admin/quotas, {LOCAL_ALTERNATIVE}"
    )


def over_limit_error(needed: int | None, max_bytes: int) -> RedditgenError:
    """Return the error for a query that reads more than --max-bytes, which is neither run nor billed."""
    needs = f"needs {format_bytes(needed)}, more" if needed else "needs more"
    # A limit of exactly the forecast would be refused: BigQuery rounds up, by 10 MB a table or more. So add 10%.
    suggestion = f" {-(-needed * 11 // 10**10)}GB" if needed else ""
    return RedditgenError(
        f"BigQuery: the query {needs} than --max-bytes, {format_bytes(max_bytes)}, and was not run; "
        f"allow more with --max-bytes{suggestion}, or read fewer --months"
    )


def _over_limit(message: str, request: RequestContext) -> RedditgenError:
    needed = re.search(r"([0-9]+) or higher required", message)
    return over_limit_error(int(needed[1]) if needed else None, request.max_bytes)


def _not_found(message: str, request: RequestContext) -> RedditgenError:
    if "Not found: Job" in message:
        return MissingError(
            f"BigQuery: no job {request.job} in project {request.project} and location {request.location}; correct "
            "--job, --project or --location, or leave out --job to run the query anew"
        )
    if ":_" in message or ".anon" in message:  # names of the hidden dataset and table that hold results
        return MissingError(
            f"BigQuery: the result of job {request.job} is not there any more, it is kept for a day or so; "
            "leave out --job to run the query anew"
        )
    return MissingError(
        f"BigQuery: {message}{request.nearest(message)}; correct --table or --months, or --location "
        f"(now {request.location})"
    )


def _invalid(message: str, request: RequestContext) -> RedditgenError:
    if "does not match any table" in message:
        return MissingError(f"BigQuery: {message}{request.nearest(message)}; correct --table or --months")
    return InputError(f"BigQuery can't run the query: {message}; correct the SQL, or --table")


def _resources_exceeded(message: str, request: RequestContext) -> RedditgenError:
    return RedditgenError(f"BigQuery: {message}; the query is too large for it: read fewer --months")


def _stopped(message: str, request: RequestContext) -> RedditgenError:
    return RedditgenError(f"BigQuery job {request.job}: was cancelled by someone; run the same command without --job")


EXPLANATIONS: dict[str, Callable[[str, RequestContext], RedditgenError]] = {
    "accessDenied": _access_denied,
    "billingNotEnabled": _billing_disabled,
    "accessNotConfigured": _api_disabled,
    "quotaExceeded": _quota_exceeded,
    "bytesBilledLimitExceeded": _over_limit,
    "notFound": _not_found,
    "invalid": _invalid,
    "invalidQuery": _invalid,
    "resourcesExceeded": _resources_exceeded,
    "responseTooLarge": _resources_exceeded,
    "stopped": _stopped,
}
