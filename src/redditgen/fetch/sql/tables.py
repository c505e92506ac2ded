"""Replaces the report's table in a query by another table, or by the monthly tables of a range of months."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from redditgen.errors import UsageError
from redditgen.fetch.sql.query import REPORT_TABLE

# fh-bigquery.reddit_posts has a table a month. The prefix leaves out full_corpus_201509, which holds the posts of the
# first years.
_CENTURY = "20"
_MONTH = re.compile(_CENTURY + r"[0-9]{2}[_-](?:0[1-9]|1[0-2])")
_TABLE_NAME = re.compile(r"[^`\s\\.]+(?:\.[^`\s\\.]+){2}")


@dataclass(frozen=True)
class TableChoice:
    """The table that is read instead of REPORT_TABLE or, with `months`, the monthly tables in its dataset.

    `months` are the names of the first and the last month, such as 2017_01 and 2019_02.
    """

    name: str = REPORT_TABLE
    months: tuple[str, str] | None = None

    @classmethod
    def from_options(cls, table: str = REPORT_TABLE, months: str | None = None) -> "TableChoice":
        """Parse the values of --table and --months; raises UsageError where one is malformed."""
        if not _TABLE_NAME.fullmatch(table):
            raise UsageError(f"--table must be PROJECT.DATASET.TABLE, not {table!r}")
        return cls(table, _parse_months(months) if months else None)

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
        """The values of @first_month and @last_month, which are table names without "20"; empty without months."""
        if not self.months:
            return {}
        first, last = (month.removeprefix(_CENTURY) for month in self.months)
        return {"first_month": first, "last_month": last}

    def put_into(self, sql: str) -> str:
        """Return the SQL with these tables in place of `REPORT_TABLE` in backquotes; all other text stays unchanged."""
        import sqlglot

        if self == TableChoice():
            return sql
        source = f"`{self.name}`"
        if self.months:
            # Of the *, BigQuery reads and bills only the columns that the query uses, and only the tables in the range.
            source = (
                f"(SELECT * FROM `{self.dataset}.{_CENTURY}*` WHERE _TABLE_SUFFIX BETWEEN @first_month AND @last_month)"
            )
        for token in reversed(sqlglot.tokenize(sql, read="bigquery")):
            if sql[token.start : token.end + 1] == f"`{REPORT_TABLE}`":
                sql = sql[: token.start] + source + sql[token.end + 1 :]
        return sql


def _parse_months(text: str) -> tuple[str, str]:
    first, colon, last = (part.strip().replace("-", "_") for part in text.partition(":"))
    last = last if colon else first
    for month in (first, last):
        if not _MONTH.fullmatch(month):
            raise UsageError(f"--months must be months like 2017_01:2019_02, not {text!r}")
    if first > last:
        raise UsageError(f"--months: {first} is after {last}; give the earlier one first")
    return first, last


def _range(first: str, last: str) -> Iterator[str]:
    """Yield the names of all months from the first to the last."""
    year, month = map(int, first.split("_"))
    while (name := f"{year}_{month:02}") <= last:
        yield name
        year, month = (year, month + 1) if month < 12 else (year + 1, 1)
