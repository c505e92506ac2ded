"""Runs queries in BigQuery, after logging what they cost, and streams their results.

Each query is first run dry, which is free: BigQuery checks it and returns how many bytes it would read. A query above
the limit is refused; otherwise a job is started, polled until it is done, and its result read in Arrow batches.
"""

import logging
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from redditgen import __version__
from redditgen.errors import InputError, Interrupted, UsageError
from redditgen.fetch.bigquery import cost, errors, result
from redditgen.fetch.bigquery.client import Connection, logged_retry
from redditgen.fetch.bigquery.parameters import parameter_values, query_parameters
from redditgen.fetch.bigquery.reasons import RequestContext, over_limit_error
from redditgen.fetch.bigquery.table_names import check_months, similar_tables
from redditgen.fetch.sql import statement
from redditgen.fetch.sql.query import REPORT_TABLE
from redditgen.fetch.sql.tables import TableChoice
from redditgen.runtime.library_logs import loggers_silenced
from redditgen.runtime.progress import LINE_INTERVAL, Progress
from redditgen.runtime.signals import signals_raise_keyboard_interrupt

if TYPE_CHECKING:
    from google.api_core.retry import Retry
    from google.cloud.bigquery import QueryJob, QueryJobConfig

MAX_BYTES = 50 * 10**9  # the default limit of what a query may read
RETRY_SECONDS = 45.0  # seconds in all; Google's client would retry for 10 minutes without any message

_REQUEST_TIMEOUT = 60.0  # seconds
_CANCEL_TIMEOUT = 10.0  # seconds
_POLL_PAUSES = (0.2, 0.5, 1.0, 2.0)  # seconds between queries of a job's state; the last one repeats
_JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,1024}")

_log = logging.getLogger(__name__)


class BigQueryPosts:
    """The posts of BigQuery's tables, to be used in a `with` block, which cancels the job on Ctrl-C and SIGTERM.

    The login is Google's Application Default Credentials. `project` pays for queries, by default the one that the login
    or GOOGLE_CLOUD_PROJECT names. With `job` no query is run: the result of that job is read if it ran the same query
    with the same parameters.

    `patience` is how many seconds a request is retried, `page_rows` the number of rows in a REST response, and
    `few_rows` the number of rows up to which a result is read over REST.
    """

    table = REPORT_TABLE  # which `run` replaces with `table` or `months`
    counts_rules = False

    def __init__(
        self,
        *,
        project: str | None = None,
        location: str = "US",
        table: str = REPORT_TABLE,
        months: str | None = None,
        max_bytes: int = MAX_BYTES,
        job: str | None = None,
        patience: float = RETRY_SECONDS,
        page_rows: int | None = None,
        few_rows: int = result.REST_MAX_ROWS,
    ) -> None:
        if job is not None and not _JOB_ID.fullmatch(job):
            raise UsageError(f"--job must be a job's id as fetch printed it, not {job!r}")
        self._tables = TableChoice.from_options(table, months)
        self._reads_existing_job = job is not None
        self._request = RequestContext(project or "", location, table, max_bytes, patience, job or "")
        with errors.map_errors(self._request):
            self._connection = Connection(project, location)
        self._client = self._connection.client
        self._request.project, self._request.nearest = self._client.project, self._similar_tables
        self._page_rows, self._few_rows = page_rows, few_rows
        self._may_be_running = False  # whether there may be an unfinished job
        self._facts: dict[str, Any] = {}
        self._stack = ExitStack()

    @property
    def project(self) -> str:
        """The project that pays for queries."""
        return self._request.project

    @cached_property
    def columns(self) -> frozenset[str]:
        """The columns of the table or, with a range of months, those of BigQuery's schema for all its tables."""
        return frozenset(
            field.name.lower() for field in self._dry_run(f"SELECT * FROM `{REPORT_TABLE}`", {}).schema or ()
        )

    @property
    def inputs(self) -> list[Path]:
        return []

    def estimate(self, sql: str, parameters: Mapping[str, Any]) -> int | None:
        """Return how many bytes the query would read, and log what that costs; None where BigQuery does not say.

        It is free, and raises the errors that `run` would raise, except for the limit of bytes.
        """
        job = self._dry_run(sql, parameters)
        if job.statement_type not in (None, "SELECT"):
            raise InputError(f"the query must be one SELECT; BigQuery takes it for {job.statement_type}")
        check_months(self._client, self._tables, self._retry(), _REQUEST_TIMEOUT)
        if job.cache_hit:
            _log.info("BigQuery: it has the result of this very query in its cache, which costs nothing")
            return 0
        _log.info("BigQuery: %s", cost.cost_forecast(job.total_bytes_processed))
        return job.total_bytes_processed or None

    def run(self, sql: str, parameters: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of one SELECT in BigQuery Standard SQL, in order; `parameters` are the values of its @names.

        Raises RedditgenError, whose message has a remedy, where the query would read more than `max_bytes`, or
        BigQuery or the network fails.
        """
        job = self._find_job(sql, parameters) if self._reads_existing_job else self._start_job(sql, parameters)
        self._wait_for_job(job)
        batches = result.read_batches(
            self._connection,
            job,
            self._retry(),
            timeout=_REQUEST_TIMEOUT,
            page_rows=self._page_rows,
            few_rows=self._few_rows,
        )
        with closing(batches), Progress("BigQuery's result", unit="rows") as progress:
            while True:
                with errors.map_errors(self._request):
                    batch = next(batches, None)
                if batch is None:
                    return
                yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)
                progress.update(batch.num_rows)

    def facts(self) -> dict[str, Any]:
        """Return what the sidecar records about the source; not the project, whose name may be a person's."""
        return self._facts

    def _prepare(self, sql: str, parameters: Mapping[str, Any]) -> "tuple[str, QueryJobConfig]":
        from google.cloud.bigquery import QueryJobConfig

        sql = self._tables.put_into(sql)
        tree = statement.parse_select(sql)
        tables = statement.tables_in_query(tree)
        self._request.tables = str(self._tables) if self._tables.months else ", ".join(tables) or "no table"
        self._facts = {"location": self._request.location, "tables": tables}
        return sql, QueryJobConfig(
            query_parameters=query_parameters(tree, {**parameters, **self._tables.suffixes}),
            maximum_bytes_billed=self._request.max_bytes,
            labels={"redditgen": re.sub(r"[^a-z0-9_-]", "-", __version__.lower())},
        )

    def _dry_run(self, sql: str, parameters: Mapping[str, Any]) -> "QueryJob":
        from google.cloud.bigquery import QueryJobConfig

        sql, config = self._prepare(sql, parameters)
        config = QueryJobConfig(query_parameters=config.query_parameters, dry_run=True)
        with errors.map_errors(self._request):
            return self._client.query(sql, config, retry=self._retry(), job_retry=None, timeout=_REQUEST_TIMEOUT)

    def _start_job(self, sql: str, parameters: Mapping[str, Any]) -> "QueryJob":
        from google.api_core.exceptions import Conflict

        count = self.estimate(sql, parameters)
        if count and count > self._request.max_bytes:
            raise over_limit_error(count, self._request.max_bytes)
        sql, config = self._prepare(sql, parameters)
        job_id = self._request.job = f"redditgen-{uuid.uuid4()}"
        _log.info("BigQuery: job %s; for a day --job reads its result again without paying", job_id)
        self._may_be_running = True
        with errors.map_errors(self._request):
            try:
                return self._client.query(
                    sql, config, job_id=job_id, retry=self._retry(), job_retry=None, timeout=_REQUEST_TIMEOUT
                )
            except Conflict:  # the response to an earlier try was lost, but the job exists
                return cast("QueryJob", self._client.get_job(job_id, retry=self._retry(), timeout=_REQUEST_TIMEOUT))

    def _find_job(self, sql: str, parameters: Mapping[str, Any]) -> "QueryJob":
        """Return the job that the caller named; raises InputError where it ran another query or other parameters."""
        from google.cloud.bigquery import QueryJob

        sql, config = self._prepare(sql, parameters)
        with errors.map_errors(self._request):
            job = self._client.get_job(self._request.job, retry=self._retry(), timeout=_REQUEST_TIMEOUT)
        if isinstance(job, QueryJob) and (job.query, parameter_values(job)) == (sql, parameter_values(config)):
            self._may_be_running = True
            return job
        raise InputError(
            f"BigQuery job {self._request.job}: was not of this query with these parameters; "
            "give the options that it was run with, or leave out --job"
        )

    def _wait_for_job(self, job: "QueryJob") -> None:
        """Wait until the job has ended; if it failed, reading its result raises the error."""
        started = last_logged = time.monotonic()
        pauses = iter(_POLL_PAUSES)
        pause = 0.0
        with errors.map_errors(self._request):
            while not job.done(retry=self._retry(), timeout=_REQUEST_TIMEOUT):
                pause = next(pauses, pause)
                time.sleep(pause)
                if (now := time.monotonic()) - last_logged >= LINE_INTERVAL:
                    last_logged = now
                    _log.info("BigQuery: job %s, %s, %.0f s", job.job_id, str(job.state).lower(), now - started)
        self._may_be_running = False
        processed, billed = job.total_bytes_processed, job.total_bytes_billed
        self._facts |= {"job": job.job_id, "bytes_processed": processed, "bytes_billed": billed}
        if billed and not self._reads_existing_job:
            _log.info("BigQuery: billed for %s", cost.format_bytes(billed))

    def _retry(self) -> "Retry":
        return logged_retry(self._request.patience)

    def _similar_tables(self, message: str) -> str:
        return similar_tables(self._client, message, self._retry(), _REQUEST_TIMEOUT)

    def _cancel_job(self) -> Interrupted:
        """Cancel the job if it may be running; return the error that says whether that succeeded."""
        from google.api_core.exceptions import GoogleAPIError, NotFound
        from google.auth.exceptions import GoogleAuthError

        job = self._request.job
        if not job:
            return Interrupted("BigQuery: interrupted before the query was run; nothing is billed")
        if not self._may_be_running:
            return Interrupted(f"BigQuery job {job}: interrupted; --job {job} reads its result without paying again")
        try:
            self._client.cancel_job(job, retry=logged_retry(_CANCEL_TIMEOUT), timeout=_CANCEL_TIMEOUT)
        except NotFound:
            return Interrupted(f"BigQuery job {job}: interrupted before it was started; nothing is billed")
        except (GoogleAPIError, GoogleAuthError, OSError) as error:
            return Interrupted(
                f"BigQuery job {job}: interrupted, but it could not be cancelled ({type(error).__name__}) and may go "
                f"on, and be billed; --job {job} reads its result"
            )
        return Interrupted(f"BigQuery job {job}: cancelled; what it has read until now may be billed")

    def __enter__(self) -> Self:
        self._stack.enter_context(signals_raise_keyboard_interrupt())
        # When a connection breaks, they log its address; the address of Google's login contains the account's name.
        self._stack.enter_context(loggers_silenced("urllib3", "google"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if isinstance(error, KeyboardInterrupt):
                raise self._cancel_job() from error
        finally:
            self._client.close()
            self._stack.close()
