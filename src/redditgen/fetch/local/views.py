"""Builds the SQL by which DuckDB reads files of posts, with redditgen's column names and BigQuery's types."""

import glob
from collections.abc import Iterable, Mapping
from pathlib import Path

from redditgen.fetch.local.files import PostsFile
from redditgen.fetch.sql.columns import COLUMN_TYPES, FLAG_COLUMNS
from redditgen.fetch.sql.duckdb_dialect import SCHEMA

_DUCKDB_TYPES = {"STRING": "VARCHAR", "INT64": "BIGINT", "BOOL": "BOOLEAN"}
# In CSV and NDJSON: pandas writes whole numbers as 5.0 where the column has a missing value.
_TEXT_FILE_TYPES = _DUCKDB_TYPES | {"INT64": "DOUBLE"}

_DATE_COLUMN = "created_utc"

# The highest line length, where DuckDB's own limits, 2 MB in CSV and 16 MB in NDJSON, are too low. A thread's buffer is
# as large, or twice as large for NDJSON, so only one thread should read then.
_LONG_LINE_BYTES = 100 << 20
_LONG_LINE_OPTIONS = {
    "CSV": f", max_line_size = {_LONG_LINE_BYTES}, buffer_size = {_LONG_LINE_BYTES}",
    "NDJSON": f", maximum_object_size = {_LONG_LINE_BYTES}",
}


def select_from_file(file: PostsFile, number: int, *, instead: Path | None = None, long_lines: bool = False) -> str:
    """Return a SELECT of the columns that the file has; with `instead`, it reads this copy of the file.

    Where the file has no column id, the id is composed of the file's `number` and the post's place in the file.
    `long_lines` raises DuckDB's limit on the length of a line to 100 MiB.
    """
    values = [f"{_column_value(file, column)} AS {column}" for column in available_columns(file)]
    if not file.source("id"):
        values.append(f"'{number:06}-' || lpad(CAST(row_number() OVER () AS VARCHAR), 12, '0') AS id")
    return f"SELECT {', '.join(values)} FROM {_table_function(file, instead or file.path, long_lines)}"


def available_columns(file: PostsFile) -> list[str]:
    """Return the columns that the file has, or may have."""
    # Only the first lines of NDJSON were inspected, and a flag can be in a few lines only.
    possible = FLAG_COLUMNS if file.format == "NDJSON" else ()
    return [column for column in COLUMN_TYPES if file.source(column) or column in possible]


def _column_value(file: PostsFile, column: str) -> str:
    name, type = file.source(column) or (column, "VARCHAR")
    value = quote_identifier(column if file.format == "CSV" else name)
    if column == _DATE_COLUMN:
        return _unix_seconds(value, type)
    return f"CAST({value} AS {_DUCKDB_TYPES[COLUMN_TYPES[column]]})"


def _unix_seconds(value: str, type: str) -> str:
    """Return SQL for a date in Unix seconds, from such seconds or text like 2019-08-01 12:00:00; else NULL."""
    if type.startswith(("TIMESTAMP", "DATE")):
        return f"CAST(epoch({value}) AS BIGINT)"
    if type != "VARCHAR":
        return f"CAST({value} AS BIGINT)"
    as_date = f"CAST(epoch(TRY_CAST({value} AS TIMESTAMPTZ)) AS BIGINT)"
    return f"COALESCE(TRY_CAST(TRY_CAST({value} AS DOUBLE) AS BIGINT), {as_date})"


def _table_function(file: PostsFile, path: Path, long_lines: bool) -> str:
    name = _string_literal(glob.escape(str(path)))  # DuckDB takes the path as a glob pattern
    line_options = _LONG_LINE_OPTIONS.get(file.format, "") if long_lines else ""
    if file.format == "Parquet":
        return f"read_parquet({name})"
    if file.format == "NDJSON":
        keys = {(file.source(column) or (column,))[0]: _text_file_type(column) for column in available_columns(file)}
        return f"read_json({name}, format = 'newline_delimited', columns = {_struct_literal(keys)}{line_options})"
    # parallel = false would select a reader that silently drops all text after a quote that is never closed.
    options = """auto_detect = false, header = true, delim = ',', quote = '"', escape = '"'"""
    return f"read_csv({name}, {options}, columns = {_struct_literal(_csv_types(file))}{line_options})"


def _csv_types(file: PostsFile) -> dict[str, str]:
    """Return a type for each column of the file by name; an unknown column gets a name that no column of ours has."""
    header = [name for name, _ in file.columns]
    known = {header.index(source[0]): column for column in COLUMN_TYPES if (source := file.source(column))}
    names = (known.get(index, f"column {index}") for index in range(len(header)))
    return {name: _text_file_type(name) for name in names}


def _text_file_type(column: str) -> str:
    return "VARCHAR" if column == _DATE_COLUMN else _TEXT_FILE_TYPES[COLUMN_TYPES.get(column, "STRING")]


def union_all(selects: Iterable[str]) -> str:
    """Return a SELECT of all rows of all `selects`, with NULL where one lacks a column that another has."""
    return " UNION ALL BY NAME ".join(selects)


def wildcard_view(name: str, views: Iterable[str]) -> str:
    """Return a SELECT of the tables `views` that the wildcard `name`, such as 20*, matches.

    The column _TABLE_SUFFIX holds the part of a table's name that the * matches, as in BigQuery.
    """
    start = len(name) - 1
    return union_all(
        f"SELECT *, {_string_literal(view[start:])} AS _TABLE_SUFFIX FROM {SCHEMA}.{quote_identifier(view)}"
        for view in views
    )


def _struct_literal(types: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{_string_literal(name)}: {_string_literal(type)}" for name, type in types.items()) + "}"


def _string_literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def quote_identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
