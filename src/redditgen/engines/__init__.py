"""The engines, and what a stage asks of each: two calls.

    finetune(settings, job)  trains a run and gives the step reached
    writing(settings, run)   is a context with a function that gives the text of each prompt, in order

A text is its prompt and what the model wrote behind it, up to and with the end token if it wrote one.
"""

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

from redditgen.dataset import Dataset
from redditgen.errors import Interrupted
from redditgen.gpt2.rundir import ModelDir, Weights
from redditgen.settings import FinetuneSettings

BLOCKS_AT_ONCE = 8  # that a Write is asked for at most

Write = Callable[[Sequence[str], int], Generator[str]]  # the text of each prompt, drawn with a seed


@dataclass(frozen=True, kw_only=True)
class Job:
    """Which run to train, on what, from which weights, between which steps."""

    run: ModelDir
    weights: Weights
    dataset: Dataset
    start: int
    end: int
    deadline: float = math.inf
    """On the clock of time.monotonic, when to save and end before the last step."""
    begun: Callable[[], None] = lambda: None
    """To be called as soon as the run is not what it was: until then it may all come to nothing."""


def interrupted_at(step: int, job: Job, settings: FinetuneSettings) -> Interrupted:
    """What a finetuning raises when it was asked to stop and has saved."""
    goes_on = settings.restore_from == "latest" or settings.skip_existing
    how = "the same command" if goes_on else "--restore-from latest"
    return Interrupted(f"{job.run.path}: saved at step {step}; {how} goes on from there")
