"""Files of posts as DuckDB's SQL: each read with redditgen's names of the columns, in BigQuery's types."""

import glob
from collections.abc import Iterable, Mapping
from pathlib import Path

from redditgen.fetch.local.files import PostsFile
from redditgen.fetch.sql.columns import COLUMN_TYPES, FLAG_COLUMNS
from redditgen.fetch.sql.duckdb_dialect import SCHEMA

_DUCKDB = {"STRING": "VARCHAR", "INT64": "BIGINT", "BOOL": "BOOLEAN"}
# pandas writes a column of whole numbers as 5.0 as soon as one is missing.
_DUCKDB_IN_TEXT = _DUCKDB | {"INT64": "DOUBLE"}

_DATE = "created_utc"

# Bytes of a line, where DuckDB's own limits, of 2 MB in CSV and 16 MB in NDJSON, do not do. Buffers are as large, or
# twice as large for NDJSON, so that one thread alone should read then.
_LONG_LINE = 100 << 20
_LONG_LINES = {
    "CSV": f", max_line_size = {_LONG_LINE}, buffer_size = {_LONG_LINE}",
    "NDJSON": f", maximum_object_size = {_LONG_LINE}",
}


def select_from_file(file: PostsFile, number: int, *, instead: Path | None = None, long_lines: bool = False) -> str:
    """A SELECT of the columns that the file has; in it `instead` stands in for the file.

    Without an id, the place in the file stands for it, and the file's `number` before that.
    """
    values = [f"{_value(file, column)} AS {column}" for column in available_columns(file)]
    if not file.source("id"):
        values.append(f"'{number:06}-' || lpad(CAST(row_number() OVER () AS VARCHAR), 12, '0') AS id")
    return f"SELECT {', '.join(values)} FROM {_table_function(file, instead or file.path, long_lines)}"


def available_columns(file: PostsFile) -> list[str]:
    """The columns that the file has, or may have."""
    # Of NDJSON not all lines are looked at, and a flag may stand in a few only.
    sure = FLAG_COLUMNS if file.format == "NDJSON" else ()
    return [column for column in COLUMN_TYPES if file.source(column) or column in sure]


def _value(file: PostsFile, column: str) -> str:
    name, type = file.source(column) or (column, "VARCHAR")
    value = quote_identifier(column if file.format == "CSV" else name)
    if column == _DATE:
        return _seconds(value, type)
    return f"CAST({value} AS {_DUCKDB[COLUMN_TYPES[column]]})"


def _seconds(value: str, type: str) -> str:
    """A date as seconds since 1970, whether it is written so or as 2019-08-01 12:00:00; NULL if it is neither."""
    if type.startswith(("TIMESTAMP", "DATE")):
        return f"CAST(epoch({value}) AS BIGINT)"
    if type != "VARCHAR":
        return f"CAST({value} AS BIGINT)"
    as_date = f"CAST(epoch(TRY_CAST({value} AS TIMESTAMPTZ)) AS BIGINT)"
    return f"COALESCE(TRY_CAST(TRY_CAST({value} AS DOUBLE) AS BIGINT), {as_date})"


def _table_function(file: PostsFile, path: Path, long_lines: bool) -> str:
    name = _literal(glob.escape(str(path)))  # DuckDB takes a path for a pattern
    further = _LONG_LINES.get(file.format, "") if long_lines else ""
    if file.format == "Parquet":
        return f"read_parquet({name})"
    if file.format == "NDJSON":
        keys = {(file.source(column) or (column,))[0]: _type_in_text(column) for column in available_columns(file)}
        return f"read_json({name}, format = 'newline_delimited', columns = {_struct(keys)}{further})"
    # Not parallel = false: that reader drops, without a word, what stands behind a quote that is never closed.
    options = """auto_detect = false, header = true, delim = ',', quote = '"', escape = '"'"""
    return f"read_csv({name}, {options}, columns = {_struct(_csv_types(file))}{further})"


def _csv_types(file: PostsFile) -> dict[str, str]:
    """A type for each column of the file; those that are not known get a name that can't be in the way."""
    header = [name for name, _ in file.columns]
    ours = {header.index(own[0]): column for column in COLUMN_TYPES if (own := file.source(column))}
    names = (ours.get(place, f"column {place}") for place in range(len(header)))
    return {name: _type_in_text(name) for name in names}


def _type_in_text(column: str) -> str:
    return "VARCHAR" if column == _DATE else _DUCKDB_IN_TEXT[COLUMN_TYPES.get(column, "STRING")]


def union_all(selects: Iterable[str]) -> str:
    """All rows of all; NULL where one lacks a column that another has."""
    return " UNION ALL BY NAME ".join(selects)


def wildcard_view(name: str, views: Iterable[str]) -> str:
    """A SELECT of several tables that a name such as 20* stands for; what the * stands for is a further column."""
    start = len(name) - 1
    return union_all(
        f"SELECT *, {_literal(view[start:])} AS _TABLE_SUFFIX FROM {SCHEMA}.{quote_identifier(view)}" for view in views
    )


def _struct(types: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{_literal(name)}: {_literal(type)}" for name, type in types.items()) + "}"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def quote_identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
