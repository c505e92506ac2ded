"""Builds the queries, in BigQuery Standard SQL, that every source of posts runs, and their parameters.

sql/titles.sql holds the whole query. Its table and its lists of columns are replaced in the text; only names of known
columns and tables are inserted, never a user's text. The values of settings are passed as @parameters.
"""

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from redditgen.errors import UsageError
from redditgen.fetch.sql.columns import COLUMN_TYPES
from redditgen.files import bundled
from redditgen.settings import FetchSettings
from redditgen.titles import filter_lists

# The table that sql/titles.sql reads, which is the report's; a source replaces it by its own.
REPORT_TABLE = "fh-bigquery.reddit_posts.2019_08"

# The common table expression that all queries share: every post with the first rule that hits it, or NULL.
JUDGED_POSTS = "judged"

# The rules that leave posts out, in the order in which they are applied.
RULES = (
    *("incomplete", "deleted", "promoted", "profile", "over_18", "quarantined", "blocked", "short", "words"),
    "duplicate",
)

# Parts of sql/titles.sql: the columns of three of its SELECTs, the order among copies of a post, and the text that
# follows the common table expression `judged`.
_POSTS_COLUMNS = re.compile(r"(?<=posts AS \(\n    SELECT\n)(.+?)(?=\n    FROM )", re.DOTALL)
_JUDGED_COLUMNS = re.compile(r"(?<=judged AS \(\n    SELECT\n      )(.+?)(?=,\n      CASE)", re.DOTALL)
_COPIES_ORDER = re.compile(r"(?<=PARTITION BY subreddit, title ORDER BY )(.+?)(?=\) AS copy)")
_RESULT_COLUMNS = re.compile(r"(?<=^SELECT )(subreddit, title)(?=\nFROM ranked)", re.MULTILINE)
_AFTER_JUDGED = re.compile(r",\n(  --[^\n]*\n)*  subreddits AS \(.*", re.DOTALL)

# A parameter's value.
ParameterValue = bool | int | str | list[str]


@dataclass(frozen=True)
class Query:
    """A SELECT, the values of its @names, and the names of its result's columns."""

    sql: str
    parameters: dict[str, ParameterValue]
    columns: tuple[str, ...]


def titles_query(settings: FetchSettings, table: str, existing_columns: Collection[str]) -> Query:
    """Return the query for the titles, with the columns of --columns, from `table`, which has `existing_columns`."""
    columns = parse_columns(settings.columns)
    sql = _replace_once(
        _RESULT_COLUMNS, _sql_text("titles.sql", table, existing_columns, columns), lambda _: ", ".join(columns)
    )
    return _with_parameters(sql, settings, columns)


def counts_query(settings: FetchSettings, table: str, existing_columns: Collection[str]) -> Query:
    """Return the query for how many posts each rule leaves out; BigQuery bills it as a further query.

    Its rows are the rule, or 'kept', and the number of posts.
    """
    return _judged_query("counts.sql", settings, table, existing_columns, ("rule", "posts"))


def review_query(settings: FetchSettings, table: str, existing_columns: Collection[str]) -> Query:
    """Return the query for how many titles of each subreddit the word list hits, with an example of each."""
    return _judged_query("review.sql", settings, table, existing_columns, ("subreddit", "hits", "titles", "example"))


def all_parameters(settings: FetchSettings) -> dict[str, ParameterValue]:
    """Return the values of all @names that a query can use."""
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
    """Return the names in --columns; raises UsageError where a name is unknown or occurs twice."""
    names = tuple(name.strip().lower() for name in columns.split(","))
    for index, name in enumerate(names):
        if name not in COLUMN_TYPES:
            raise UsageError(f"--columns: no column {name!r}; there are {', '.join(COLUMN_TYPES)}")
        if name in names[:index]:
            raise UsageError(f"--columns: {name} comes twice; name each column once")
    return names


def _judged_query(
    file: str, settings: FetchSettings, table: str, available: Collection[str], columns: tuple[str, ...]
) -> Query:
    judged = _replace_once(_AFTER_JUDGED, _sql_text("titles.sql", table, available, ()), lambda _: "\n")
    return _with_parameters(judged + _read_sql(file), settings, columns)


def _with_parameters(sql: str, settings: FetchSettings, columns: tuple[str, ...]) -> Query:
    used = {name: value for name, value in all_parameters(settings).items() if re.search(rf"@{name}\b", sql)}
    return Query(sql, used, columns)


def _sql_text(file: str, table: str, available: Collection[str], columns: Iterable[str]) -> str:
    """Return the SQL of `file` reading `table`, with NULL for columns not `available`.

    `columns` that the text does not select are added to the common table expressions `posts` and `judged`.
    """

    def in_posts(names: str) -> str:
        added = (f", {_column_or_null(name, available)}" for name in columns if not re.search(rf"\b{name}\b", names))
        return re.sub(r"\w+", lambda name: _column_or_null(name[0], available), names) + "".join(added)

    def in_judged(names: str) -> str:
        return names + "".join(f", {name}" for name in columns if not re.search(rf"\b{name}\b", names))

    def in_order(keys: str) -> str:
        # The added columns break ties between copies of a post: else their values could come from any of the copies.
        return ", ".join((keys, *(name for name in columns if name not in ("subreddit", "title", "score", "id"))))

    text = _replace_once(_POSTS_COLUMNS, _read_sql(file).replace(f"`{REPORT_TABLE}`", f"`{table}`"), in_posts)
    text = _replace_once(_JUDGED_COLUMNS, text, in_judged)
    return _replace_once(_COPIES_ORDER, text, in_order)


def _column_or_null(name: str, available: Collection[str]) -> str:
    return name if name in available else f"CAST(NULL AS {COLUMN_TYPES[name]}) AS {name}"


def _replace_once(pattern: re.Pattern[str], text: str, replacement: Callable[[str], str]) -> str:
    text, count = pattern.subn(lambda match: replacement(match[0]), text)
    assert count == 1, f"{pattern.pattern} is {count} times in the SQL text"
    return text


def _read_sql(file: str) -> str:
    return bundled.path(f"sql/{file}").read_text(encoding="utf8")
