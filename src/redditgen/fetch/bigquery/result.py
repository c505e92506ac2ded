"""The result of a job as Arrow batches: through the Storage Read API where it can be had, over REST where not."""

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

REST_MAX_ROWS = 50_000  # come by REST in a few answers, sooner than another connection is made
_SESSION = 20.0  # seconds in which the Storage Read API must let itself be had

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
    """The rows of a job that is done, in their order; raises what Google's client raises, the job's failure first.

    `page_rows` is how many rows a REST answer has, by default what fits in 10 MB.
    """
    rows = job.result(page_size=page_rows, retry=retry, timeout=timeout, job_retry=None)
    if (rows.total_rows or 0) > few_rows:
        with connection.storage() as storage:
            pages = _stream(storage, job, retry) if storage else None
            if pages is not None:
                yield from pages
                return
    yield from rows.to_arrow_iterable()


def _stream(storage: "BigQueryReadClient", job: "QueryJob", retry: "Retry") -> "Iterator[pa.RecordBatch] | None":
    """The rows through the Storage Read API; None, with the reason in the log, where it can't be had."""
    import pyarrow as pa
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError
    from google.cloud.bigquery_storage import DataFormat, ReadSession

    wanted = ReadSession(table=job.destination.to_bqstorage(), data_format=DataFormat.ARROW)
    try:
        session = storage.create_read_session(
            parent=f"projects/{job.project}",
            read_session=wanted,
            max_stream_count=1,  # several would come in any order
            retry=None,
            timeout=_SESSION,
        )
        answers = iter(storage.read_rows(session.streams[0].name, retry=retry))
        first = list(itertools.islice(answers, 1))  # only now it shows whether the rows may be read
    except (GoogleAPIError, GoogleAuthError) as error:
        _log.info("BigQuery: no Storage Read API (%s); reading over REST, which is slower", type(error).__name__)
        return None
    # Its own way to Arrow is deprecated in favour of one that needs pandas.
    schema = pa.ipc.read_schema(pa.py_buffer(session.arrow_schema.serialized_schema))
    return (
        pa.ipc.read_record_batch(pa.py_buffer(answer.arrow_record_batch.serialized_record_batch), schema)
        for answer in itertools.chain(first, answers)
    )
