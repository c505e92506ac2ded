"""The tables of a BigQuery dataset: which months of a range are missing, and which names resemble a wrong one."""

import difflib
import logging
import re
from typing import TYPE_CHECKING

from redditgen.errors import MissingError
from redditgen.fetch.sql.tables import _MONTH, TableChoice, _range

if TYPE_CHECKING:
    from google.api_core.retry import Retry
    from google.cloud.bigquery import Client

_NAMED = re.compile(r"([\w.:-]+):(\w+)(?:\.([\w*-]+))?")  # as BigQuery's messages write a table's name


_LISTED = 5  # names in a message


_log = logging.getLogger(__name__)


def similar_tables(client: "Client", said: str, retry: "Retry", timeout: float) -> str:
    """The tables that are called most like the one in BigQuery's message, as its continuation; empty if none is."""
    named = _NAMED.search(said)
    if not named or not named[3]:
        return ""
    names = _listed(client, f"{named[1]}.{named[2]}", retry, timeout)
    close = difflib.get_close_matches(named[3].rstrip("*"), names, _LISTED, cutoff=0.4)
    return f"; there are {', '.join(close)}" if close else ""


def check_months(client: "Client", tables: TableChoice, retry: "Retry", timeout: float) -> None:
    """Warn of months in the range that have no table; raises MissingError if none has.

    BigQuery itself says nothing of them.
    """
    if not tables.months or not (names := _listed(client, tables.dataset, retry, timeout)):
        return
    wanted = list(_range(*tables.months))
    missing = [month for month in wanted if month not in names]
    if missing == wanted:
        there = sorted(name for name in names if _MONTH.fullmatch(name))
        raise MissingError(
            f"BigQuery: {tables.dataset} has no table for {wanted[0]} to {wanted[-1]}; "
            + (f"it has {there[0]} to {there[-1]}; correct --months" if there else "correct --table")
        )
    if missing:
        more = f" and {len(missing) - _LISTED} more months" if len(missing) > _LISTED else ""
        _log.warning("BigQuery: %s has no table for %s%s", tables.dataset, ", ".join(missing[:_LISTED]), more)


def _listed(client: "Client", dataset: str, retry: "Retry", timeout: float) -> list[str]:
    """The tables' names; empty where they can't be listed, which who may query a table need not be allowed to."""
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError

    try:
        return [table.table_id for table in client.list_tables(dataset, retry=retry, timeout=timeout)]
    except (GoogleAPIError, GoogleAuthError, OSError, ValueError):
        return []
