"""Cuts rows into groups, whose records are shuffled together, and each group into batches for the workers.

The cuts depend on the rows alone, so the output doesn't depend on the number of workers.
"""

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from redditgen.encode.title_rows import TitleRow

_GROUP = 16_384  # rows
_BATCH = 500  # rows; more where the next ones have the same text


class EncodeBatch(NamedTuple):
    """Rows that a worker encodes together, and the number of the group that they are from."""

    group: int
    rows: list[TitleRow]


def cut_into_batches(rows: Iterator[TitleRow], *, done: int) -> Iterator[EncodeBatch]:
    """Yield the batches of all groups after the first `done` ones, which are encoded already."""
    groups = iter(lambda: list(islice(rows, _GROUP)), [])
    for number, group in enumerate(groups):
        if number >= done:
            yield from (EncodeBatch(number, batch) for batch in _batches(group))


def _batches(group: list[TitleRow]) -> Iterator[list[TitleRow]]:
    """Yield batches of texts of similar length, which spaCy parses fastest.

    Equal texts share a batch, so that each is parsed once. The longest texts come first, so that the last batches,
    which the other workers wait for, are quick.
    """
    rows = sorted(group, key=lambda row: (-len(row.source), row.source, row.number))
    batch: list[TitleRow] = []
    for row in rows:
        if len(batch) >= _BATCH and row.source != batch[-1].source:
            yield batch
            batch = []
        batch.append(row)
    yield batch
