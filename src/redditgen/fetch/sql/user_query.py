"""Reads a user's own query: one SELECT in a file, which is run as it is written."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from redditgen.errors import InputError, UsageError
from redditgen.fetch.sql import query
from redditgen.fetch.sql.query import Query
from redditgen.fetch.sql.statement import parse_select
from redditgen.files.text import open_text
from redditgen.settings import FetchSettings

if TYPE_CHECKING:
    from sqlglot import exp

# Settings that have no effect except as the value of a @parameter.
_VALUE_OPTIONS = ("min_score", "top_subreddits", "per_subreddit", "min_length", "block", "words")

# Columns whose values are unique to a post.
_UNIQUE_COLUMNS = {"id", "name"}


def read_user_query(path: Path, settings: FetchSettings) -> tuple[Query, list[str]]:
    """Return the query with the values of its @parameters, and those of its ORDER BY clauses that may leave ties.

    Raises InputError where it is not one SELECT, columns of its result lack a name or share one, or a parameter is
    unknown; UsageError where an option is given whose @parameter it does not use.
    """
    sql = _read_text(path)
    try:
        tree = parse_select(sql)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    columns = _result_columns(tree, path)
    return Query(sql, _used_parameters(tree, settings, path), columns), list(dict.fromkeys(_orders_with_ties(tree)))


def _read_text(path: Path) -> str:
    with open_text(path, made_by="--sql needs a file with a query") as file:
        return file.read()


def _result_columns(tree: "exp.Query", path: Path) -> tuple[str, ...]:
    names = tuple(tree.named_selects)
    if not all(names) or "*" in names:
        raise InputError(f"{path}: the result's columns need names; list them instead of *, and name each with AS")
    for name, count in Counter(name.casefold() for name in names).items():
        if count > 1:
            raise InputError(f"{path}: the result has {count} columns {name}; give each another name with AS")
    return names


def _used_parameters(tree: "exp.Query", settings: FetchSettings, path: Path) -> dict[str, query.ParameterValue]:
    from sqlglot import exp

    used = dict.fromkeys(parameter.name for parameter in tree.find_all(exp.Parameter))
    _refuse_unused(settings, used, path)
    known = query.all_parameters(settings)
    for name in used:
        if name not in known:
            raise InputError(f"{path}: no parameter @{name}; there are {', '.join(f'@{name}' for name in known)}")
    return {name: known[name] for name in used}


def _refuse_unused(settings: FetchSettings, used: Collection[str], path: Path) -> None:
    for name in _VALUE_OPTIONS:
        if name not in used and getattr(settings, name) != getattr(FetchSettings, name):
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(f"{flag}: {path} does not use @{name}; write it into the query, or leave out {flag}")


def _orders_with_ties(tree: "exp.Query") -> Iterator[str]:
    """Yield the orders that the result depends on and that, as far as the text shows, may leave ties."""
    from sqlglot import exp

    for window in tree.find_all(exp.Window):
        if isinstance(window.this, exp.RowNumber) and not _UNIQUE_COLUMNS & _order_keys(window):
            yield _order_text(window)
    for select in tree.find_all(exp.Query):
        if (select is tree or select.args.get("limit")) and not _has_no_ties(select):
            yield _order_text(select)


def _has_no_ties(select: "exp.Query") -> bool:
    """Return whether the text shows that the rows have only one possible order, or that there is only one row.

    The keys of ORDER BY leave no ties where they include a unique column, the number from a window function with all
    columns of its PARTITION BY, or all columns of GROUP BY.
    """
    from sqlglot import exp

    keys = _order_keys(select)
    if _UNIQUE_COLUMNS & keys or isinstance(select, exp.Subquery):
        return True
    windows = [alias for alias in select.root().find_all(exp.Alias) if isinstance(alias.this, exp.Window)]
    if any({window.alias, *_column_names(window.this.args.get("partition_by") or ())} <= keys for window in windows):
        return True
    group = select.args.get("group")
    if group is None:
        return any(_is_total(column) for column in select.selects)
    return set(_column_names(group.expressions)) <= keys


def _is_total(column: "exp.Expr") -> bool:
    """Return whether the column is an aggregate over all rows."""
    from sqlglot import exp

    return column.find(exp.AggFunc) is not None and column.find(exp.Window) is None


def _order_keys(expression: "exp.Expr") -> set[str]:
    order = expression.args.get("order")
    return set(_column_names(ordered.this for ordered in order.expressions)) if order else set()


def _column_names(expressions: "Iterable[exp.Expr]") -> Iterator[str]:
    """Yield the name of each plain column, and the SQL text of each other expression."""
    from sqlglot import exp

    for expression in expressions:
        yield expression.name if isinstance(expression, exp.Column) else expression.sql(dialect="bigquery")


def _order_text(expression: "exp.Expr") -> str:
    order = expression.args.get("order")
    return order.sql(dialect="bigquery").strip() if order else "what has no ORDER BY"
