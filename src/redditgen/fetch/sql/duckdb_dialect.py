"""Translates BigQuery Standard SQL to DuckDB's dialect; BigQuery's tables become views in the schema `tables`."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from redditgen.errors import InputError
from redditgen.fetch.sql.query import REPORT_TABLE
from redditgen.fetch.sql.statement import parse_select

if TYPE_CHECKING:
    from sqlglot import exp

DATASET = REPORT_TABLE.rpartition(".")[0]
SCHEMA = "tables"

_MAX_LISTED = 20  # tables named in a message


@dataclass(frozen=True)
class TranslatedQuery:
    """A query in DuckDB's dialect, and the views that it reads."""

    sql: str
    kept: str
    """The SELECT of the table that was cut out of the query and that `sql` reads; empty where there is none."""
    views: tuple[str, ...]
    """The names of the views that `sql` and `kept` read."""


def translate(sql: str, tables: Collection[str], *, keep: str = "") -> TranslatedQuery:
    """Translate one SELECT to DuckDB's dialect; `tables` are the names of the tables that the dataset has.

    The common table expression named `keep`, with those before it, is cut out of the query: the caller creates a table
    of that name from it. Raises InputError where the query is not one SELECT, or reads a table that does not exist.
    """
    tree = parse_select(sql)
    views = _redirect_to_views(tree, tables)
    _adapt_to_duckdb(tree)
    kept = _cut_out(tree, keep)
    return TranslatedQuery(_to_duckdb_sql(tree), kept, tuple(dict.fromkeys(views)))


def matching_tables(pattern: str, tables: Collection[str]) -> list[str]:
    """Return the names of the tables that `pattern`, a name or a wildcard such as 20*, matches."""
    if not pattern.endswith("*"):
        return [pattern] if pattern in tables else []
    return sorted(name for name in tables if name.startswith(pattern[:-1]))


def _redirect_to_views(tree: "exp.Query", tables: Collection[str]) -> list[str]:
    """Replace each table in the query by the view of the same name, in place; return the views' names."""
    from sqlglot import exp

    cte_names = {cte.alias_or_name.casefold() for cte in tree.find_all(exp.CTE)}
    views = []
    for table in tree.find_all(exp.Table):
        if not table.db and table.name.casefold() in cte_names:
            continue
        dataset, _, name = ".".join(part.name for part in table.parts).rpartition(".")
        if dataset != DATASET or not matching_tables(name, tables):
            raise InputError(f"the query reads {dataset}.{name}, but {_tables_text(tables)}".replace(" .", " "))
        table.set("catalog", None)
        table.set("db", exp.to_identifier(SCHEMA))
        views.append(name)
    return views


def _tables_text(tables: Collection[str]) -> str:
    names = sorted(tables)
    listed = ", ".join(names[:_MAX_LISTED]) + (
        f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    )
    return f"the local tables are {listed}; write `{DATASET}.{names[0]}`, or `{DATASET}.*` for all"


def _adapt_to_duckdb(tree: "exp.Query") -> None:
    """Replace, in place, expressions that sqlglot would translate to inexact or slow ones."""
    from sqlglot import exp

    # DuckDB's approximate count differs from Google's and would select other top subreddits; so the count is exact.
    for approximate in list(tree.find_all(exp.ApproxDistinct)):
        approximate.replace(exp.Count(this=exp.Distinct(expressions=[approximate.this])))
    # sqlglot would translate IN UNNEST(list) to a search through the list for each row.
    for membership in list(tree.find_all(exp.In)):
        if isinstance(unnest := membership.args.get("unnest"), exp.Unnest):
            items = exp.select(exp.Anonymous(this="UNNEST", expressions=[unnest.expressions[0].copy()]))
            membership.replace(exp.In(this=membership.this.copy(), query=items.subquery()))


def _cut_out(tree: "exp.Query", name: str) -> str:
    """Remove the common table expression `name` and those before it from the query; return the SELECT of its rows.

    Returns '' where the query has no such expression.
    """
    names = [cte.alias for cte in tree.ctes]
    if name not in names:
        return ""
    index = names.index(name)
    before, last, after = tree.ctes[:index], tree.ctes[index], tree.ctes[index + 1 :]
    rows = last.this.copy()
    for cte in before:
        rows = rows.with_(cte.alias, as_=cte.this.copy(), copy=False)
    tree.args["with_"].set("expressions", after)
    if not after:
        tree.set("with_", None)
    return _to_duckdb_sql(rows)


def _to_duckdb_sql(tree: "exp.Query") -> str:
    return tree.sql(dialect="duckdb", identify=True, comments=False)
