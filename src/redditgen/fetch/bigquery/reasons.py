"""What each of BigQuery's reasons for refusing a request means, and what to do about it."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from redditgen.errors import InputError, MissingError, RedditgenError
from redditgen.fetch.bigquery.cost import format_bytes

LOCAL_ALTERNATIVE = "or read local files: --from FILE"

_CONSOLE = "https://console.cloud.google.com"


@dataclass
class RequestContext:
    """What was asked of whom, as messages name it."""

    project: str
    location: str
    tables: str
    max_bytes: int
    patience: float
    """Seconds that a request is tried again for."""
    job: str = ""
    nearest: Callable[[str], str] = lambda said: ""
    """What tables there are that are called much like the one that BigQuery's words say is not there."""

    def go_on(self) -> str:
        """How to come by the result of a job that may go on without us."""
        return f"; if the job has started, --job {self.job} reads its result" if self.job else ""


def _access_denied(said: str, request: RequestContext) -> RedditgenError:
    return RedditgenError(
        f"BigQuery: {said}; either the account may not run jobs in project {request.project} (it needs the role "
        f"BigQuery Job User; another project: --project), or {request.tables} is hidden from it or not there"
    )


def _billing(said: str, request: RequestContext) -> RedditgenError:
    return RedditgenError(
        f"BigQuery: billing is not enabled for project {request.project}; enable it at {_CONSOLE}/billing, "
        f"name another with --project, {LOCAL_ALTERNATIVE}"
    )


def _api_off(said: str, request: RequestContext) -> RedditgenError:
    return RedditgenError(
        f"BigQuery: its API is switched off in project {request.project}; switch it on at "
        f"{_CONSOLE}/apis/library/bigquery.googleapis.com?project={request.project}"
    )


def _quota(said: str, request: RequestContext) -> RedditgenError:
    if "free query bytes" in said:
        return RedditgenError(
            f"BigQuery: project {request.project} has used up the month's free 1 TiB; it is renewed on the first of "
            f"the next month, or enable billing at {_CONSOLE}/billing, {LOCAL_ALTERNATIVE}"
        )
    return RedditgenError(
        f"BigQuery: {said} (quotaExceeded); wait, or raise project {request.project}'s quota at "
        f"{_CONSOLE}/iam-admin/quotas, {LOCAL_ALTERNATIVE}"
    )


def over_limit_error(needed: int | None, max_bytes: int) -> RedditgenError:
    """The query reads more than --max-bytes: refused, and not billed."""
    needs = f"needs {format_bytes(needed)}, more" if needed else "needs more"
    # A limit of just what is forecast would be refused: BigQuery rounds up, by 10 MB for each table at least.
    enough = f" {-(-needed * 11 // 10**10)}GB" if needed else ""
    return RedditgenError(
        f"BigQuery: the query {needs} than --max-bytes, {format_bytes(max_bytes)}, and was not run; "
        f"allow more with --max-bytes{enough}, or read fewer --months"
    )


def _bytes_billed(said: str, request: RequestContext) -> RedditgenError:
    needed = re.search(r"([0-9]+) or higher required", said)
    return over_limit_error(int(needed[1]) if needed else None, request.max_bytes)


def _not_found(said: str, request: RequestContext) -> RedditgenError:
    if "Not found: Job" in said:
        return MissingError(
            f"BigQuery: no job {request.job} in project {request.project} and location {request.location}; correct "
            "--job, --project or --location, or leave out --job to run the query anew"
        )
    if ":_" in said or ".anon" in said:  # the hidden dataset of results
        return MissingError(
            f"BigQuery: the result of job {request.job} is not there any more, it is kept for a day or so; "
            "leave out --job to run the query anew"
        )
    return MissingError(
        f"BigQuery: {said}{request.nearest(said)}; correct --table or --months, or --location (now {request.location})"
    )


def _invalid(said: str, request: RequestContext) -> RedditgenError:
    if "does not match any table" in said:
        return MissingError(f"BigQuery: {said}{request.nearest(said)}; correct --table or --months")
    return InputError(f"BigQuery can't run the query: {said}; correct the SQL, or --table")


def _resources(said: str, request: RequestContext) -> RedditgenError:
    return RedditgenError(f"BigQuery: {said}; the query is too large for it: read fewer --months")


def _stopped(said: str, request: RequestContext) -> RedditgenError:
    return RedditgenError(f"BigQuery job {request.job}: was cancelled by someone; run the same command without --job")


EXPLANATIONS: dict[str, Callable[[str, RequestContext], RedditgenError]] = {
    "accessDenied": _access_denied,
    "billingNotEnabled": _billing,
    "accessNotConfigured": _api_off,
    "quotaExceeded": _quota,
    "bytesBilledLimitExceeded": _bytes_billed,
    "notFound": _not_found,
    "invalid": _invalid,
    "invalidQuery": _invalid,
    "resourcesExceeded": _resources,
    "responseTooLarge": _resources,
    "stopped": _stopped,
}
