"""A stream of tokens and the windows cut from it: how gpt-2-simple trains, and all that text without records allows."""

import random
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

USUAL = 256  # tokens; gpt-2-simple's 1,024 do not fit a 4 GB card, and four or five titles stand in 256


@dataclass(frozen=True)
class TokenStream:
    """Tokens in chunks; no window reaches from one chunk into the next."""

    chunks: "tuple[NDArray[np.int32], ...]"

    @property
    def tokens(self) -> int:
        return sum(map(len, self.chunks))

    def places(self, length: int) -> int:
        """How many windows of `length` tokens there are."""
        return sum(max(0, len(chunk) - length + 1) for chunk in self.chunks)

    def windows(self, count: int, length: int, *, seed: int, step: int) -> "NDArray[np.int32]":
        """The windows [count, length] of a step: each drawn fairly among all there are, by seed and step alone.

        The worker of the gpt-2-simple engine draws the same ones.
        """
        rng = random.Random(f"{seed}:{step}")
        ends = list(accumulate(max(0, len(chunk) - length + 1) for chunk in self.chunks))
        rows = []
        for _ in range(count):
            place = rng.randrange(ends[-1])
            number = bisect_right(ends, place)
            start = place - (ends[number - 1] if number else 0)
            rows.append(self.chunks[number][start : start + length])
        return np.stack(rows)
