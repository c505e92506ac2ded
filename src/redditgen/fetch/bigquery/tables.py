"""The tables that are read in place of the query's own: another one, or those of a range of months."""

import difflib
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from redditgen.errors import MissingError, UsageError
from redditgen.fetch.query import TABLE

if TYPE_CHECKING:
    from google.api_core.retry import Retry
    from google.cloud.bigquery import Client

# fh-bigquery.reddit_posts has a table a month; 20* leaves out full_corpus_201509, which holds the first years' posts.
_CENTURY = "20"
_MONTH = re.compile(_CENTURY + r"[0-9]{2}[_-](?:0[1-9]|1[0-2])")
_TABLE = re.compile(r"[^`\s\\.]+(?:\.[^`\s\\.]+){2}")
_NAMED = re.compile(r"([\w.:-]+):(\w+)(?:\.([\w*-]+))?")  # as BigQuery's messages write a table's name
_LISTED = 5  # names in a message

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tables:
    """The table that is read instead of the query's own, or all of a range of months beside it."""

    name: str = TABLE
    months: tuple[str, str] | None = None

    @classmethod
    def of(cls, table: str = TABLE, months: str | None = None) -> "Tables":
        """From the options' texts; raises UsageError."""
        if not _TABLE.fullmatch(table):
            raise UsageError(f"--table must be PROJECT.DATASET.TABLE, not {table!r}")
        return cls(table, _months(months) if months else None)

    def __str__(self) -> str:
        if not self.months:
            return self.name
        first, last = self.months
        return f"{self.dataset}.{first} to {last}"

    @property
    def dataset(self) -> str:
        return self.name.rpartition(".")[0]

    @property
    def suffixes(self) -> dict[str, str]:
        """The parameters of the range."""
        if not self.months:
            return {}
        first, last = (month.removeprefix(_CENTURY) for month in self.months)
        return {"first_month": first, "last_month": last}

    def put_into(self, sql: str) -> str:
        """The SQL text with these tables where the query's own stands; everything else stays as it is written."""
        import sqlglot

        if self == Tables():
            return sql
        source = f"`{self.name}`"
        if self.months:
            # BigQuery reads, and bills, only the columns that the query uses of the * and the tables in the range.
            source = (
                f"(SELECT * FROM `{self.dataset}.{_CENTURY}*` WHERE _TABLE_SUFFIX BETWEEN @first_month AND @last_month)"
            )
        for token in reversed(sqlglot.tokenize(sql, read="bigquery")):
            if sql[token.start : token.end + 1] == f"`{TABLE}`":
                sql = sql[: token.start] + source + sql[token.end + 1 :]
        return sql


def _months(text: str) -> tuple[str, str]:
    first, colon, last = (part.strip().replace("-", "_") for part in text.partition(":"))
    last = last if colon else first
    for month in (first, last):
        if not _MONTH.fullmatch(month):
            raise UsageError(f"--months must be months like 2017_01:2019_02, not {text!r}")
    if first > last:
        raise UsageError(f"--months: {first} is after {last}; give the earlier one first")
    return first, last


def nearest(client: "Client", said: str, retry: "Retry", timeout: float) -> str:
    """The tables that are called most like the one in BigQuery's message, as its continuation; empty if none is."""
    named = _NAMED.search(said)
    if not named or not named[3]:
        return ""
    names = _listed(client, f"{named[1]}.{named[2]}", retry, timeout)
    close = difflib.get_close_matches(named[3].rstrip("*"), names, _LISTED, cutoff=0.4)
    return f"; there are {', '.join(close)}" if close else ""


def check_months(client: "Client", tables: Tables, retry: "Retry", timeout: float) -> None:
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


def _range(first: str, last: str) -> Iterator[str]:
    year, month = map(int, first.split("_"))
    while (name := f"{year}_{month:02}") <= last:
        yield name
        year, month = (year, month + 1) if month < 12 else (year + 1, 1)
