"""A stream of tokens, and random windows of it to train on, as gpt-2-simple does and as plain text requires.

A step's windows are sampled uniformly, with replacement, among all positions at which a whole window fits into one
chunk: a random position among all is found in its chunk by a binary search over the chunks' cumulative counts. With c
chunks, a step takes O(c + windows log c) time. Windows follow from the seed and the step alone, so a resumed training
gets the ones that an uninterrupted one would have got.
"""

import random
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class TokenStream:
    """Tokens in chunks; no window reaches from one chunk into the next."""

    chunks: "tuple[NDArray[np.int32], ...]"
    """The tokens of each chunk, [tokens]."""

    @property
    def tokens(self) -> int:
        """The number of tokens in all chunks."""
        return sum(map(len, self.chunks))

    def window_count(self, length: int) -> int:
        """Return how many windows of `length` tokens there are: one for each position at which one fits a chunk."""
        return sum(max(0, len(chunk) - length + 1) for chunk in self.chunks)

    def windows(self, count: int, length: int, *, seed: int, step: int) -> "NDArray[np.int32]":
        """Return the windows of a step, [count, length] int32, sampled uniformly among all windows of `length`.

        At least one chunk must be that long. The worker of the gpt-2-simple engine samples the same windows.
        """
        rng = random.Random(f"{seed}:{step}")
        ends = list(accumulate(max(0, len(chunk) - length + 1) for chunk in self.chunks))
        rows = []
        for _ in range(count):
            position = rng.randrange(ends[-1])
            chunk = bisect_right(ends, position)
            start = position - (ends[chunk - 1] if chunk else 0)
            rows.append(self.chunks[chunk][start : start + length])
        return np.stack(rows)
