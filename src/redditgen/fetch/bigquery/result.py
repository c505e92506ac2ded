"""Reads the result of a job as Arrow batches: large ones through the Storage Read API if available, else over REST."""

import itertools
import logging
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa
    from google.api_core.retry import Retry
    from google.cloud.bigquery import QueryJob
    from google.cloud.bigquery_storage import BigQueryReadClient

    from redditgen.fetch.bigquery.client import Connection

REST_MAX_ROWS = 50_000  # REST returns up to this many in a few responses, before another connection would be open
_SESSION_TIMEOUT = 20.0  # seconds in which the Storage Read API must create a session

_log = logging.getLogger(__name__)


def read_batches(
    connection: "Connection",
    job: "QueryJob",
    retry: "Retry",
    *,
    timeout: float,
    page_rows: int | None = None,
    few_rows: int = REST_MAX_ROWS,
) -> "Generator[pa.RecordBatch]":
    """Yield the rows of an ended job, in order; raises the exceptions of Google's client, among them the job's failure.

    `timeout` is in seconds, for each request. `page_rows` is the number of rows in a REST response, by default as many
    as fit in 10 MB. Results of up to `few_rows` rows are read over REST.
    """
    rows = job.result(page_size=page_rows, retry=retry, timeout=timeout, job_retry=None)
    if (rows.total_rows or 0) > few_rows:
        with connection.storage() as storage:
            batches = _open_stream(storage, job, retry) if storage else None
            if batches is not None:
                yield from batches
                return
    yield from rows.to_arrow_iterable()


def _open_stream(storage: "BigQueryReadClient", job: "QueryJob", retry: "Retry") -> "Iterator[pa.RecordBatch] | None":
    """Return the rows through the Storage Read API; None, with the reason logged, where it is not available."""
    import pyarrow as pa
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError
    from google.cloud.bigquery_storage import DataFormat, ReadSession

    requested = ReadSession(table=job.destination.to_bqstorage(), data_format=DataFormat.ARROW)
    try:
        session = storage.create_read_session(
            parent=f"projects/{job.project}",
            read_session=requested,
            max_stream_count=1,  # several streams would return the rows in any order
            retry=None,
            timeout=_SESSION_TIMEOUT,
        )
        responses = iter(storage.read_rows(session.streams[0].name, retry=retry))
        first = list(itertools.islice(responses, 1))  # the first read shows whether the rows may be read
    except (GoogleAPIError, GoogleAuthError) as error:
        _log.info("BigQuery: no Storage Read API (%s); reading over REST, which is slower", type(error).__name__)
        return None
    # The client's own conversion to Arrow is deprecated in favour of one that needs pandas.
    schema = pa.ipc.read_schema(pa.py_buffer(session.arrow_schema.serialized_schema))
    return (
        pa.ipc.read_record_batch(pa.py_buffer(response.arrow_record_batch.serialized_record_batch), schema)
        for response in itertools.chain(first, responses)
    )
