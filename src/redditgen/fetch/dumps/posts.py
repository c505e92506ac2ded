"""The posts in the lines of a dump, as Arrow tables: DuckDB parses them, and what it can't parse is counted."""

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


_LEAST_BUFFER = 1_000_000  # bytes
_ROWS = 122_880  # of a row group, DuckDB's own number; fewer where they are long
_ROWS_BYTES = 64_000_000


@dataclass(frozen=True)
class DumpCounts:
    """Of lines, blank ones aside."""

    posts: int = 0
    incomplete: int = 0
    """Left out: no subreddit or no title."""
    broken: int = 0
    """Left out: not JSON, not UTF-8, or nothing of a post in it."""

    def __add__(self, other: "DumpCounts") -> "DumpCounts":
        return DumpCounts(*map(operator.add, astuple(self), astuple(other)))


def arrow_schema() -> "pa.Schema":
    import pyarrow as pa

    arrow = {"VARCHAR": pa.string(), "BIGINT": pa.int64(), "BOOLEAN": pa.bool_()}
    return pa.schema([(name, arrow[type]) for name, type in DUMP_COLUMN_TYPES.items()])


def parse_blocks(blocks: Iterable[bytes]) -> Generator[tuple["pa.Table", DumpCounts]]:
    """The posts of each block of whole lines, in the lines' order, and how many lines were what."""
    # With more threads of DuckDB's rows would come in any order.
    with duckdb_connection.connect_offline(threads=1) as connection, ThreadPoolExecutor(max_workers=1) as thread:
        parsed = (thread.submit(_parse, connection, block) for block in blocks)
        # Each is waited for when the next one has been unpacked and submitted.
        for block, _ in itertools.pairwise(itertools.chain(parsed, (None,))):
            assert block is not None
            yield block.result()


def merge_row_groups(tables: Iterable[tuple["pa.Table", DumpCounts]]) -> Iterator[tuple["pa.Table", DumpCounts]]:
    """Small tables put together to such as row groups should be."""
    import pyarrow as pa

    held: list[pa.Table] = []
    counts = DumpCounts()
    for table, of_table in tables:
        held.append(table)
        counts += of_table
        if counts.posts >= _ROWS or sum(table.nbytes for table in held) >= _ROWS_BYTES:
            yield pa.concat_tables(held), counts
            held, counts = [], DumpCounts()
    if held:
        yield pa.concat_tables(held), counts


def _parse(connection: "DuckDBPyConnection", block: bytes) -> tuple["pa.Table", DumpCounts]:
    import duckdb
    import pyarrow.compute as pc

    lines = block.count(b"\n") + (not block.endswith(b"\n"))
    try:
        table = _read(connection, block)
    except duckdb.Error:
        table = None
    if table is None or table.num_rows != lines or _empty_rows(table):
        table, lines = _reread(connection, block, table)
    rows = table.num_rows - len(_empty_rows(table))
    posts = table.filter(pc.and_(pc.is_valid(table["subreddit"]), pc.is_valid(table["title"])))
    return posts, DumpCounts(posts.num_rows, incomplete=rows - posts.num_rows, broken=lines - rows)


def _read(connection: "DuckDBPyConnection", block: bytes) -> "pa.Table":
    """A row for each line that is not blank; all of it is NULL where DuckDB can't parse the line."""
    relation = connection.read_json(
        BytesIO(block),
        format="newline_delimited",
        columns=DUMP_COLUMN_TYPES,
        ignore_errors=True,
        maximum_object_size=max(_LEAST_BUFFER, len(block)),  # half of what DuckDB allocates anew for each block
    )
    return relation.to_arrow_table().cast(arrow_schema())


def _empty_rows(table: "pa.Table") -> list[int]:
    import pyarrow.compute as pc

    is_null = functools.reduce(pc.and_, (pc.is_null(table[name]) for name in DUMP_COLUMN_TYPES))
    places: list[int] = pc.indices_nonzero(is_null).to_pylist()
    return places


def _reread(connection: "DuckDBPyConnection", block: bytes, table: "pa.Table | None") -> tuple["pa.Table", int]:
    """The table with the rows that only Python can read, and how many lines there are.

    DuckDB refuses half a surrogate pair. 1.5 loses all lines behind one in which brackets stay open, and 2.0 gives up
    at one with more than 128 of them.
    """
    lines = [line for line in block.split(b"\n") if line.strip()]
    if table is not None and table.num_rows != len(lines):
        table = None
    unread = range(len(lines)) if table is None else _empty_rows(table)
    reread = {place: _columns(lines[place]) for place in unread}
    if table is None or any(reread.values()):
        table = _read(connection, b"\n".join(reread.get(place, line) for place, line in enumerate(lines)))
    return table, len(lines)


def _columns(line: bytes) -> bytes:
    """The line with the columns alone, as text where they are nested; empty if Python can't read it."""
    try:
        post = json.loads(line)
        columns = (
            {name: _flat(post[name]) for name in DUMP_COLUMN_TYPES if name in post} if isinstance(post, dict) else {}
        )
        text = json.dumps(columns, ensure_ascii=False) if columns else ""
    except (ValueError, RecursionError):
        return b""
    return surrogates.replace_surrogates(text).encode()


def _flat(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) if isinstance(value, dict | list) else value
