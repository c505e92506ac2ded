"""A query of the user's own: one SELECT from a file, run as it is written."""

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

# Options that are a parameter's value, and nothing else.
_VALUES = ("min_score", "top_subreddits", "per_subreddit", "min_length", "block", "words")

# Reddit's names of a post, of which there is one each.
_UNIQUE = {"id", "name"}


def read_user_query(path: Path, settings: FetchSettings) -> tuple[Query, list[str]]:
    """The query with the parameters that it uses of redditgen's; and its orders that leave ties open.

    Raises InputError where it is not one SELECT, a column of its result has no name, or a parameter is not known;
    UsageError where an option is given that it does not use.
    """
    sql = _text(path)
    try:
        tree = parse_select(sql)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    columns = _columns(tree, path)
    return Query(sql, _parameters(tree, settings, path), columns), list(dict.fromkeys(_open_orders(tree)))


def _text(path: Path) -> str:
    with open_text(path, made_by="--sql needs a file with a query") as file:
        return file.read()


def _columns(tree: "exp.Query", path: Path) -> tuple[str, ...]:
    names = tuple(tree.named_selects)
    if not all(names) or "*" in names:
        raise InputError(f"{path}: the result's columns need names; list them instead of *, and name each with AS")
    for name, count in Counter(name.casefold() for name in names).items():
        if count > 1:
            raise InputError(f"{path}: the result has {count} columns {name}; give each another name with AS")
    return names


def _parameters(tree: "exp.Query", settings: FetchSettings, path: Path) -> dict[str, query.ParameterValue]:
    from sqlglot import exp

    used = dict.fromkeys(parameter.name for parameter in tree.find_all(exp.Parameter))
    _refuse_unused(settings, used, path)
    known = query.all_parameters(settings)
    for name in used:
        if name not in known:
            raise InputError(f"{path}: no parameter @{name}; there are {', '.join(f'@{name}' for name in known)}")
    return {name: known[name] for name in used}


def _refuse_unused(settings: FetchSettings, used: Collection[str], path: Path) -> None:
    for name in _VALUES:
        if name not in used and getattr(settings, name) != getattr(FetchSettings, name):
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(f"{flag}: {path} does not use @{name}; write it into the query, or leave out {flag}")


def _open_orders(tree: "exp.Query") -> Iterator[str]:
    """Orders on which the result depends and that, for all that can be seen, do not settle ties."""
    from sqlglot import exp

    for window in tree.find_all(exp.Window):
        if isinstance(window.this, exp.RowNumber) and not _UNIQUE & _keys(window):
            yield _shown(window)
    for part in tree.find_all(exp.Query):
        if (part is tree or part.args.get("limit")) and not _settles(part):
            yield _shown(part)


def _settles(part: "exp.Query") -> bool:
    """Whether the rows can come in one order only, or there is but one row."""
    from sqlglot import exp

    keys = _keys(part)
    if _UNIQUE & keys or isinstance(part, exp.Subquery):
        return True
    numbers = [alias for alias in part.root().find_all(exp.Alias) if isinstance(alias.this, exp.Window)]
    if any({number.alias, *_names(number.this.args.get("partition_by") or ())} <= keys for number in numbers):
        return True
    group = part.args.get("group")
    if group is None:
        return any(_is_sum(column) for column in part.selects)
    return set(_names(group.expressions)) <= keys


def _is_sum(column: "exp.Expr") -> bool:
    """Whether it is one value of all rows."""
    from sqlglot import exp

    return column.find(exp.AggFunc) is not None and column.find(exp.Window) is None


def _keys(part: "exp.Expr") -> set[str]:
    order = part.args.get("order")
    return set(_names(ordered.this for ordered in order.expressions)) if order else set()


def _names(expressions: "Iterable[exp.Expr]") -> Iterator[str]:
    """The names of plain columns; of anything else, its text."""
    from sqlglot import exp

    for expression in expressions:
        yield expression.name if isinstance(expression, exp.Column) else expression.sql(dialect="bigquery")


def _shown(part: "exp.Expr") -> str:
    order = part.args.get("order")
    return order.sql(dialect="bigquery").strip() if order else "what has no ORDER BY"
