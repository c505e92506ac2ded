"""The tables that are read in place of the query's own: another one, or those of a range of months."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from redditgen.errors import UsageError
from redditgen.fetch.sql.query import REPORT_TABLE

if TYPE_CHECKING:
    pass

# fh-bigquery.reddit_posts has a table a month; 20* leaves out full_corpus_201509, which holds the first years' posts.
_CENTURY = "20"
_MONTH = re.compile(_CENTURY + r"[0-9]{2}[_-](?:0[1-9]|1[0-2])")
_TABLE = re.compile(r"[^`\s\\.]+(?:\.[^`\s\\.]+){2}")


@dataclass(frozen=True)
class TableChoice:
    """The table that is read instead of the query's own, or all of a range of months beside it."""

    name: str = REPORT_TABLE
    months: tuple[str, str] | None = None

    @classmethod
    def from_options(cls, table: str = REPORT_TABLE, months: str | None = None) -> "TableChoice":
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

        if self == TableChoice():
            return sql
        source = f"`{self.name}`"
        if self.months:
            # BigQuery reads, and bills, only the columns that the query uses of the * and the tables in the range.
            source = (
                f"(SELECT * FROM `{self.dataset}.{_CENTURY}*` WHERE _TABLE_SUFFIX BETWEEN @first_month AND @last_month)"
            )
        for token in reversed(sqlglot.tokenize(sql, read="bigquery")):
            if sql[token.start : token.end + 1] == f"`{REPORT_TABLE}`":
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


def _range(first: str, last: str) -> Iterator[str]:
    year, month = map(int, first.split("_"))
    while (name := f"{year}_{month:02}") <= last:
        yield name
        year, month = (year, month + 1) if month < 12 else (year + 1, 1)
