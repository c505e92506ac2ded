"""Rows cut into windows, which are shuffled as a whole, and these into batches, each of which one worker encodes.

Both are cut the same way always, so the output doesn't depend on the workers.
"""

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from redditgen.encode.title_rows import TitleRow

_WINDOW = 16_384  # rows
_BATCH = 500  # rows


class EncodeBatch(NamedTuple):
    """Rows to encode together, and the window they are of."""

    window: int
    rows: list[TitleRow]


def cut_into_batches(rows: Iterator[TitleRow], *, done: int) -> Iterator[EncodeBatch]:
    """The batches of each window, behind the `done` windows that are encoded already."""
    windows = iter(lambda: list(islice(rows, _WINDOW)), [])
    for number, window in enumerate(windows):
        if number >= done:
            yield from (EncodeBatch(number, batch) for batch in _batches(window))


def _batches(window: list[TitleRow]) -> Iterator[list[TitleRow]]:
    """Texts of like length together, which spaCy parses fastest, and the same texts together, so each is parsed once.

    The longest come first: the last batches, for which the other workers wait, are then quick ones.
    """
    rows = sorted(window, key=lambda row: (-len(row.source), row.source, row.number))
    batch: list[TitleRow] = []
    for row in rows:
        if len(batch) >= _BATCH and row.source != batch[-1].source:
            yield batch
            batch = []
        batch.append(row)
    yield batch
