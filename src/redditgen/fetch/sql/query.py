"""The queries in BigQuery Standard SQL, the same for every source, and their parameters from the settings.

sql/titles.sql is the whole of it: what is put into its text are names of our own columns, never what a user wrote.
"""

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from redditgen.errors import UsageError
from redditgen.fetch.sql.columns import COLUMN_TYPES
from redditgen.files import bundled
from redditgen.settings import FetchSettings
from redditgen.titles import filter_lists

# The table that the SQL text reads, the report's own; a source puts another in its place.
REPORT_TABLE = "fh-bigquery.reddit_posts.2019_08"

# The common table expression that all queries begin with: every post with the first rule that hits it.
JUDGED_POSTS = "judged"

# The rules in the order in which they are asked.
RULES = (
    *("incomplete", "deleted", "promoted", "profile", "over_18", "quarantined", "blocked", "short", "words"),
    "duplicate",
)

_POSTS = re.compile(r"(?<=posts AS \(\n    SELECT\n)(.+?)(?=\n    FROM )", re.DOTALL)
_JUDGED = re.compile(r"(?<=judged AS \(\n    SELECT\n      )(.+?)(?=,\n      CASE)", re.DOTALL)
_COPIES_ORDER = re.compile(r"(?<=PARTITION BY subreddit, title ORDER BY )(.+?)(?=\) AS copy)")
_TITLES = re.compile(r"(?<=^SELECT )(subreddit, title)(?=\nFROM ranked)", re.MULTILINE)
_BEHIND_JUDGED = re.compile(r",\n(  --[^\n]*\n)*  subreddits AS \(.*", re.DOTALL)

# A parameter's value.
ParameterValue = bool | int | str | list[str]


@dataclass(frozen=True)
class Query:
    """A SELECT, the values of its @names, and the names of the columns that come out."""

    sql: str
    parameters: dict[str, ParameterValue]
    columns: tuple[str, ...]


def titles_query(settings: FetchSettings, table: str, there: Collection[str]) -> Query:
    """The query for the titles, in `--columns`, from a table that has the columns `there`."""
    columns = parse_columns(settings.columns)
    sql = _replaced(_TITLES, _text("titles.sql", table, there, columns), lambda _: ", ".join(columns))
    return _query(sql, settings, columns)


def counts_query(settings: FetchSettings, table: str, there: Collection[str]) -> Query:
    """How many posts each rule leaves out: rows of rule, or 'kept', and posts. BigQuery bills it as another query."""
    return _behind_judged("counts.sql", settings, table, there, ("rule", "posts"))


def review_query(settings: FetchSettings, table: str, there: Collection[str]) -> Query:
    """How many titles of each subreddit the word list hits, with an example."""
    return _behind_judged("review.sql", settings, table, there, ("subreddit", "hits", "titles", "example"))


def all_parameters(settings: FetchSettings) -> dict[str, ParameterValue]:
    """What stands behind all @names that a query can have."""
    return {
        "sfw": settings.sfw,
        "block": filter_lists.blocked_subreddits(settings.block, sfw=settings.sfw),
        "words": filter_lists.word_list_pattern(settings.words),
        "min_length": settings.min_length,
        "min_score": settings.min_score,
        "top_subreddits": settings.top_subreddits,
        "per_subreddit": settings.per_subreddit,
    }


def parse_columns(columns: str) -> tuple[str, ...]:
    """The names in --columns; raises UsageError where one is not known or comes twice."""
    names = tuple(name.strip().lower() for name in columns.split(","))
    for place, name in enumerate(names):
        if name not in COLUMN_TYPES:
            raise UsageError(f"--columns: no column {name!r}; there are {', '.join(COLUMN_TYPES)}")
        if name in names[:place]:
            raise UsageError(f"--columns: {name} comes twice; name each column once")
    return names


def _behind_judged(
    file: str, settings: FetchSettings, table: str, there: Collection[str], columns: tuple[str, ...]
) -> Query:
    judged = _replaced(_BEHIND_JUDGED, _text("titles.sql", table, there, ()), lambda _: "\n")
    return _query(judged + _read(file), settings, columns)


def _query(sql: str, settings: FetchSettings, columns: tuple[str, ...]) -> Query:
    used = {name: value for name, value in all_parameters(settings).items() if re.search(rf"@{name}\b", sql)}
    return Query(sql, used, columns)


def _text(file: str, table: str, there: Collection[str], columns: Iterable[str]) -> str:
    """The SQL text for a table, in which absent columns are NULL, carrying further columns along to the end."""

    def in_posts(names: str) -> str:
        further = (f", {_column(name, there)}" for name in columns if not re.search(rf"\b{name}\b", names))
        return re.sub(r"\w+", lambda name: _column(name[0], there), names) + "".join(further)

    def in_judged(names: str) -> str:
        return names + "".join(f", {name}" for name in columns if not re.search(rf"\b{name}\b", names))

    def in_order(keys: str) -> str:
        # So that of two copies of a post it is settled from which one the further columns come.
        return ", ".join((keys, *(name for name in columns if name not in ("subreddit", "title", "score", "id"))))

    text = _replaced(_POSTS, _read(file).replace(f"`{REPORT_TABLE}`", f"`{table}`"), in_posts)
    text = _replaced(_JUDGED, text, in_judged)
    return _replaced(_COPIES_ORDER, text, in_order)


def _column(name: str, there: Collection[str]) -> str:
    return name if name in there else f"CAST(NULL AS {COLUMN_TYPES[name]}) AS {name}"


def _replaced(pattern: re.Pattern[str], text: str, by: Callable[[str], str]) -> str:
    text, count = pattern.subn(lambda match: by(match[0]), text)
    assert count == 1, f"{pattern.pattern} is {count} times in the SQL text"
    return text


def _read(file: str) -> str:
    return bundled.path(f"sql/{file}").read_text(encoding="utf8")
