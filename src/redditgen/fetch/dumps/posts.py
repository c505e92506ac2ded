"""Parses the lines of a dump to Arrow tables of posts, and counts the lines that are left out.

DuckDB parses a block of lines at once. Lines that it can't parse are read again by Python's json, cleaned, and passed
to DuckDB once more; those that Python can't read either are counted as broken.
"""

import functools
import itertools
import json
import operator
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

from redditgen.fetch.sql import duckdb_connection
from redditgen.fetch.sql.columns import DUMP_COLUMN_TYPES
from redditgen.files import surrogates

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection


_MIN_BUFFER = 1_000_000  # bytes that DuckDB may read as one JSON object
_GROUP_ROWS = 122_880  # rows of a Parquet row group, as DuckDB writes; fewer where they are long
_GROUP_BYTES = 64_000_000  # Arrow bytes at which a row group is complete


@dataclass(frozen=True)
class DumpCounts:
    """Counts of a dump's lines, except blank ones."""

    posts: int = 0
    incomplete: int = 0
    """Left out, since they have no subreddit or no title."""
    broken: int = 0
    """Left out, since they are not JSON, not UTF-8, or have none of a post's columns."""

    def __add__(self, other: "DumpCounts") -> "DumpCounts":
        return DumpCounts(*map(operator.add, astuple(self), astuple(other)))


def arrow_schema() -> "pa.Schema":
    import pyarrow as pa

    arrow = {"VARCHAR": pa.string(), "BIGINT": pa.int64(), "BOOLEAN": pa.bool_()}
    return pa.schema([(name, arrow[type]) for name, type in DUMP_COLUMN_TYPES.items()])


def parse_blocks(blocks: Iterable[bytes]) -> Generator[tuple["pa.Table", DumpCounts]]:
    """Yield the posts of each block of whole lines, in the lines' order, and the counts of its lines.

    One thread parses a block while the next one is decompressed.
    """
    # With more than one thread, DuckDB would return the rows in any order.
    with duckdb_connection.connect_offline(threads=1) as connection, ThreadPoolExecutor(max_workers=1) as thread:
        parsed = (thread.submit(_parse_block, connection, block) for block in blocks)
        # A block's result is waited for only after the next block has been decompressed and submitted.
        for block, _ in itertools.pairwise(itertools.chain(parsed, (None,))):
            assert block is not None
            yield block.result()


def merge_row_groups(tables: Iterable[tuple["pa.Table", DumpCounts]]) -> Iterator[tuple["pa.Table", DumpCounts]]:
    """Yield the tables concatenated to the size of a Parquet row group, each with the sum of their counts."""
    import pyarrow as pa

    pending: list[pa.Table] = []
    counts = DumpCounts()
    for table, table_counts in tables:
        pending.append(table)
        counts += table_counts
        if counts.posts >= _GROUP_ROWS or sum(table.nbytes for table in pending) >= _GROUP_BYTES:
            yield pa.concat_tables(pending), counts
            pending, counts = [], DumpCounts()
    if pending:
        yield pa.concat_tables(pending), counts


def _parse_block(connection: "DuckDBPyConnection", block: bytes) -> tuple["pa.Table", DumpCounts]:
    import duckdb
    import pyarrow.compute as pc

    lines = block.count(b"\n") + (not block.endswith(b"\n"))
    try:
        table = _read_json(connection, block)
    except duckdb.Error:
        table = None
    if table is None or table.num_rows != lines or _empty_rows(table):
        table, lines = _reread_with_python(connection, block, table)
    rows = table.num_rows - len(_empty_rows(table))
    posts = table.filter(pc.and_(pc.is_valid(table["subreddit"]), pc.is_valid(table["title"])))
    return posts, DumpCounts(posts.num_rows, incomplete=rows - posts.num_rows, broken=lines - rows)


def _read_json(connection: "DuckDBPyConnection", block: bytes) -> "pa.Table":
    """Return a row for each line that is not blank, with only NULLs where DuckDB can't parse the line."""
    relation = connection.read_json(
        BytesIO(block),
        format="newline_delimited",
        columns=DUMP_COLUMN_TYPES,
        ignore_errors=True,
        maximum_object_size=max(_MIN_BUFFER, len(block)),  # DuckDB allocates twice this for each block
    )
    return relation.to_arrow_table().cast(arrow_schema())


def _empty_rows(table: "pa.Table") -> list[int]:
    import pyarrow.compute as pc

    is_null = functools.reduce(pc.and_, (pc.is_null(table[name]) for name in DUMP_COLUMN_TYPES))
    indices: list[int] = pc.indices_nonzero(is_null).to_pylist()
    return indices


def _reread_with_python(
    connection: "DuckDBPyConnection", block: bytes, table: "pa.Table | None"
) -> tuple["pa.Table", int]:
    """Return the block's table with the rows that only Python can read, and the number of its lines.

    `table` is what DuckDB read of the block, or None. DuckDB refuses half a surrogate pair. DuckDB 1.5 loses all lines
    after one with unclosed brackets, and 2.0 fails at a line with more than 128 of them.
    """
    lines = [line for line in block.split(b"\n") if line.strip()]
    if table is not None and table.num_rows != len(lines):
        table = None
    unread = range(len(lines)) if table is None else _empty_rows(table)
    repaired = {index: _clean_line(lines[index]) for index in unread}
    if table is None or any(repaired.values()):
        table = _read_json(connection, b"\n".join(repaired.get(index, line) for index, line in enumerate(lines)))
    return table, len(lines)


def _clean_line(line: bytes) -> bytes:
    """Return the line with only a post's columns, nested values as JSON text; b"" where Python can't read it."""
    try:
        post = json.loads(line)
        columns = (
            {name: _nested_to_text(post[name]) for name in DUMP_COLUMN_TYPES if name in post}
            if isinstance(post, dict)
            else {}
        )
        text = json.dumps(columns, ensure_ascii=False) if columns else ""
    except (ValueError, RecursionError):
        return b""
    return surrogates.replace_surrogates(text).encode()


def _nested_to_text(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) if isinstance(value, dict | list) else value
