"""When a training does worse than at its start, told from what losses do anyway.

Losses of single steps say little: with a title a step they lie a nat and more apart. So means are judged, and by a
margin that only losses keep that go up for good.
"""

import math
from collections import deque

FIRST_STEPS = 20  # steps whose mean loss is where the training began
LAST_STEPS = 20  # steps whose mean loss tells that it has diverged
RECENT_STEPS = 10  # and that it may be about to
ABOVE_FIRST = 2.0  # nats a token above that beginning
ABOVE_CHANCE = 1.0  # nats a token above a guess of all tokens alike, or above the very first loss


class DivergenceDetector:
    """Looks at the loss of each step of one command."""

    def __init__(self, n_vocab: int) -> None:
        self._limit = math.log(n_vocab)
        self._first: list[float] = []
        self._last: deque[float] = deque(maxlen=LAST_STEPS)

    def add(self, loss: float) -> None:
        self._last.append(loss)
        if len(self._first) == FIRST_STEPS:
            return
        if not self._first:
            self._limit = max(self._limit, loss) + ABOVE_CHANCE
        self._first.append(loss)
        if len(self._first) == FIRST_STEPS:
            self._limit = min(self._limit, self.began_at + ABOVE_FIRST)

    @property
    def began_at(self) -> float:
        """The mean loss of the first steps."""
        return _mean(self._first)

    @property
    def is_at(self) -> float:
        """The mean loss of the last few steps."""
        return _mean(list(self._last)[-RECENT_STEPS:])

    @property
    def may_be(self) -> bool:
        """Whether the loss stands so high that weights had better not be saved now."""
        return not self.is_at <= self._limit

    def may_begin(self, loss_after: float) -> bool:
        """Whether the last step has made weights that are far worse, by their loss on what it has learned from."""
        return not loss_after <= self._last[-1] + ABOVE_FIRST

    @property
    def is_certain(self) -> bool:
        """Whether it has stood there for long, or is no number any more."""
        return not math.isfinite(self._last[-1]) or (
            len(self._last) == LAST_STEPS and _mean(list(self._last)) > self._limit
        )


def _mean(losses: list[float]) -> float:
    return sum(losses) / len(losses) if losses else 0.0
