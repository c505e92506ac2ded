"""BigQuery Standard SQL made DuckDB's, which reads views of the schema `tables` where BigQuery reads tables."""

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

_NAMED = 20  # tables in a message


@dataclass(frozen=True)
class TranslatedQuery:
    """DuckDB's SQL; that of a table that it reads besides, if it was cut out; the names of the views of both."""

    sql: str
    kept: str
    views: tuple[str, ...]


def translate(sql: str, tables: Collection[str], *, keep: str = "") -> TranslatedQuery:
    """One SELECT for DuckDB; `tables` are those of the dataset.

    A common table expression of the name `keep`, with those before it, is cut out to become a table of that name.
    Raises InputError where the query is not one SELECT, or reads a table that is not there.
    """
    tree = parse_select(sql)
    views = _read_views(tree, tables)
    _mend(tree)
    kept = _cut(tree, keep)
    return TranslatedQuery(_written(tree), kept, tuple(dict.fromkeys(views)))


def matching_tables(pattern: str, tables: Collection[str]) -> list[str]:
    """The names of the tables that one name, or a wildcard such as 20*, stands for."""
    if not pattern.endswith("*"):
        return [pattern] if pattern in tables else []
    return sorted(name for name in tables if name.startswith(pattern[:-1]))


def _read_views(tree: "exp.Query", tables: Collection[str]) -> list[str]:
    """Make the tables views of the same names, which are given back."""
    from sqlglot import exp

    expressions = {cte.alias_or_name.casefold() for cte in tree.find_all(exp.CTE)}
    views = []
    for table in tree.find_all(exp.Table):
        if not table.db and table.name.casefold() in expressions:
            continue
        dataset, _, name = ".".join(part.name for part in table.parts).rpartition(".")
        if dataset != DATASET or not matching_tables(name, tables):
            raise InputError(f"the query reads {dataset}.{name}, but {_there(tables)}".replace(" .", " "))
        table.set("catalog", None)
        table.set("db", exp.to_identifier(SCHEMA))
        views.append(name)
    return views


def _there(tables: Collection[str]) -> str:
    names = sorted(tables)
    listed = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
    return f"the local tables are {listed}; write `{DATASET}.{names[0]}`, or `{DATASET}.*` for all"


def _mend(tree: "exp.Query") -> None:
    """Put what DuckDB does exactly, or faster, in place of what sqlglot would make of it."""
    from sqlglot import exp

    # BigQuery lets an engine approximate; DuckDB's sketch is another than Google's, and gives other top subreddits.
    for approximate in list(tree.find_all(exp.ApproxDistinct)):
        approximate.replace(exp.Count(this=exp.Distinct(expressions=[approximate.this])))
    # sqlglot makes a search through the list of it for each row.
    for among in list(tree.find_all(exp.In)):
        if isinstance(unnest := among.args.get("unnest"), exp.Unnest):
            items = exp.select(exp.Anonymous(this="UNNEST", expressions=[unnest.expressions[0].copy()]))
            among.replace(exp.In(this=among.this.copy(), query=items.subquery()))


def _cut(tree: "exp.Query", name: str) -> str:
    """Cut a common table expression and those before it out of the query; the SQL of its rows, or ''."""
    names = [cte.alias for cte in tree.ctes]
    if name not in names:
        return ""
    place = names.index(name)
    before, last, behind = tree.ctes[:place], tree.ctes[place], tree.ctes[place + 1 :]
    rows = last.this.copy()
    for cte in before:
        rows = rows.with_(cte.alias, as_=cte.this.copy(), copy=False)
    tree.args["with_"].set("expressions", behind)
    if not behind:
        tree.set("with_", None)
    return _written(rows)


def _written(tree: "exp.Query") -> str:
    return tree.sql(dialect="duckdb", identify=True, comments=False)
