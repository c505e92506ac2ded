"""Detection of a training loss that goes up for good, as opposed to the usual noise.

Single losses say little: with one title a step, they differ by a nat and more. So means over several steps are compared
with a limit, which leaves a wide margin. All losses are in nats a token.

1. At the first step, the limit is ABOVE_CHANCE above the larger of ln(vocabulary), which is the loss of guessing all
   tokens alike, and the first loss.
2. After FIRST_STEPS steps, the limit becomes ABOVE_FIRST above their mean loss, where that is lower.
3. The training may be diverging while the mean of the last RECENT_STEPS losses is above the limit: nothing is saved.
4. It has diverged once the mean of the last LAST_STEPS losses is above the limit, or a loss is infinite or NaN.
5. A single step has spoilt the weights if, after it, the loss on the batches it trained on is ABOVE_FIRST above the
   loss before it.

Each step costs a few additions; memory holds 40 losses.
"""

import math
from collections import deque

FIRST_STEPS = 20  # steps whose mean loss is the level at which the training began
LAST_STEPS = 20  # steps whose mean loss shows that it has diverged
RECENT_STEPS = 10  # steps whose mean loss shows that it may be diverging
ABOVE_FIRST = 2.0  # nats a token: the margin above the mean loss of the first steps
ABOVE_CHANCE = 1.0  # nats a token: the margin above guessing all tokens alike, or above the first loss


class DivergenceDetector:
    """Watches the losses of the steps of one command."""

    def __init__(self, n_vocab: int) -> None:
        self._limit = math.log(n_vocab)
        self._first: list[float] = []
        self._last: deque[float] = deque(maxlen=LAST_STEPS)

    def add(self, loss: float) -> None:
        """Take the mean loss of one step, in nats a token."""
        self._last.append(loss)
        if len(self._first) == FIRST_STEPS:
            return
        if not self._first:
            self._limit = max(self._limit, loss) + ABOVE_CHANCE
        self._first.append(loss)
        if len(self._first) == FIRST_STEPS:
            self._limit = min(self._limit, self.initial_loss + ABOVE_FIRST)

    @property
    def initial_loss(self) -> float:
        """The mean loss of the first FIRST_STEPS steps, or of those there are so far; 0 before the first."""
        return _mean(self._first)

    @property
    def recent_loss(self) -> float:
        """The mean loss of the last RECENT_STEPS steps; 0 before the first."""
        return _mean(list(self._last)[-RECENT_STEPS:])

    @property
    def may_be_diverging(self) -> bool:
        """Whether the recent losses are so high, or NaN, that the weights should not be saved now."""
        return not self.recent_loss <= self._limit

    def last_step_spoilt_weights(self, loss_after: float) -> bool:
        """Return whether the last step has made the weights far worse.

        `loss_after` is the loss of the new weights on the batches that the step trained on; at least one loss must have
        been added. NaN counts as worse.
        """
        return not loss_after <= self._last[-1] + ABOVE_FIRST

    @property
    def has_diverged(self) -> bool:
        """Whether the training has diverged: the loss has been above the limit for long, or is infinite or NaN."""
        return not math.isfinite(self._last[-1]) or (
            len(self._last) == LAST_STEPS and _mean(list(self._last)) > self._limit
        )


def _mean(losses: list[float]) -> float:
    return sum(losses) / len(losses) if losses else 0.0
