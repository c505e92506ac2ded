"""The engines, and what a stage asks of each: two calls.

    finetune(settings, job)                 trains a run and gives the step reached
    generate(settings, run, prompts, seed)  gives the text of each prompt, in order

A text is its prompt and what the model wrote behind it, up to and with the end token if it wrote one.
"""

from dataclasses import dataclass

from redditgen.dataset import Dataset
from redditgen.gpt2.rundir import ModelDir, Weights


@dataclass(frozen=True, kw_only=True)
class Job:
    """Which run to train, on what, from which weights, between which steps."""

    run: ModelDir
    weights: Weights
    dataset: Dataset
    start: int
    end: int
