"""Lists the tables of a BigQuery dataset, to find missing months and names similar to a wrong one."""

import difflib
import logging
import re
from typing import TYPE_CHECKING

from redditgen.errors import MissingError
from redditgen.fetch.sql.tables import _MONTH, TableChoice, _range

if TYPE_CHECKING:
    from google.api_core.retry import Retry
    from google.cloud.bigquery import Client

_TABLE_IN_MESSAGE = re.compile(r"([\w.:-]+):(\w+)(?:\.([\w*-]+))?")  # PROJECT:DATASET.TABLE, as in BigQuery's messages


_MAX_LISTED = 5  # names in a message


_log = logging.getLogger(__name__)


def similar_tables(client: "Client", said: str, retry: "Retry", timeout: float) -> str:
    """Return a continuation of BigQuery's message `said` with the tables most similar to the one in it, or ''."""
    match = _TABLE_IN_MESSAGE.search(said)
    if not match or not match[3]:
        return ""
    names = _list_tables(client, f"{match[1]}.{match[2]}", retry, timeout)
    close = difflib.get_close_matches(match[3].rstrip("*"), names, _MAX_LISTED, cutoff=0.4)
    return f"; there are {', '.join(close)}" if close else ""


def check_months(client: "Client", tables: TableChoice, retry: "Retry", timeout: float) -> None:
    """Log a warning where months of the range have no table; raises MissingError where none has one.

    BigQuery itself ignores missing months silently.
    """
    if not tables.months or not (names := _list_tables(client, tables.dataset, retry, timeout)):
        return
    wanted = list(_range(*tables.months))
    missing = [month for month in wanted if month not in names]
    if missing == wanted:
        existing = sorted(name for name in names if _MONTH.fullmatch(name))
        raise MissingError(
            f"BigQuery: {tables.dataset} has no table for {wanted[0]} to {wanted[-1]}; "
            + (f"it has {existing[0]} to {existing[-1]}; correct --months" if existing else "correct --table")
        )
    if missing:
        more = f" and {len(missing) - _MAX_LISTED} more months" if len(missing) > _MAX_LISTED else ""
        _log.warning("BigQuery: %s has no table for %s%s", tables.dataset, ", ".join(missing[:_MAX_LISTED]), more)


def _list_tables(client: "Client", dataset: str, retry: "Retry", timeout: float) -> list[str]:
    """Return the tables' names; empty where they can't be listed, which needs more rights than queries do."""
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError

    try:
        return [table.table_id for table in client.list_tables(dataset, retry=retry, timeout=timeout)]
    except (GoogleAPIError, GoogleAuthError, OSError, ValueError):
        return []
