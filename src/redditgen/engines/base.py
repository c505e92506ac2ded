"""What a stage asks of an engine, as two functions, and the values that it hands over.

    finetune(job)                         trains a run and returns the step it reached
    open_writer(run, sampling, options)   a context that yields a function from prompts to texts, in order

A text is its prompt and what the model wrote after it, through the end token if the model wrote one. Engines know
nothing of command-line settings: `finetune/command.py` and `generate/session.py` turn settings into these values.
"""

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

from redditgen.engines.data.dataset import Dataset
from redditgen.errors import Interrupted
from redditgen.gpt2.hyperparameters import Hyperparameters
from redditgen.gpt2.model_dir import AnyModelDir, ModelDir
from redditgen.titles.record import END_TOKEN

AUTO = "auto"
BLOCKS_AT_ONCE = 8  # blocks of prompts that a WriteTexts function is asked for at most
MAX_BLOCK_ROWS = 128  # more rows are no faster
ADAPTER_RATE_FACTOR = 10  # LoRA's learning rate over that of the weights themselves
CACHE_BYTES = 2**30  # bytes that the keys and values of a block may take

WriteTexts = Callable[[Sequence[str], int], Generator[str]]
"""Yields the text of each prompt, in order; the second argument is the seed."""


# --- Training ---


@dataclass(frozen=True, kw_only=True)
class OptimizerOptions:
    """How each step changes the weights; None stands for the engine's own default."""

    name: str
    """adam, or sgd: plain gradient descent at a constant rate, without clipping."""
    learning_rate: float | None
    batch_size: int | None
    """Records a batch, or windows of plain text; of each ray worker where there are several."""
    accumulate_gradients: int | None
    """Batches a step."""
    window: int
    """Tokens of a window of plain text."""
    seed: int
    """Seed of the order of the records."""


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """What is trained, in which precision, and how much memory it may take; None leaves the choice to the engine."""

    train: str | None
    """full, layers, head or lora."""
    precision: str
    """auto, float32, bfloat16 or float16."""
    memory: int | None
    """Bytes."""
    memory_saving_gradients: bool
    weight_bits: int | None
    lora_rank: int | None


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The steps of a training: where it starts and ends, and after which steps it measures and reports."""

    start: int
    end: int
    deadline: float = math.inf
    """On the clock of time.monotonic: when to save and end before the last step."""
    deadline_reason: str = ""
    """What a message calls the deadline."""
    val_every: int
    print_every: int
    early_stop: int | None
    """End after so many measurements of the held-out loss in a row that are not below the lowest."""
    early_stop_from: int = 0
    """Only measurements after this step count for `early_stop`."""


@dataclass(frozen=True, kw_only=True)
class CheckpointOptions:
    """When checkpoints are saved, and which of them are kept."""

    save_every: int
    max_checkpoints: int
    """0 keeps all."""
    keep_best: bool
    plot: bool
    """Draw the losses into a picture at each save."""


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """The samples that a training writes on the way: how often, how many, of how many tokens, into which folder."""

    every: int
    number: int
    length: int
    folder: Path


@dataclass(frozen=True, kw_only=True)
class RayWorkers:
    """How many ray workers train together, and on which cluster; None leaves the number to the cluster's size."""

    number: int | None
    address: str | None


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """Which run to train, from which weights, on what, and how."""

    run: ModelDir
    initial_model: AnyModelDir
    """Where the first step's weights are read from: a base model, another run, or the run itself."""
    dataset: Dataset
    optimizer: OptimizerOptions
    plan: PlanOptions
    schedule: Schedule
    checkpoints: CheckpointOptions
    samples: SampleOptions
    model_dir: Path
    """Folder of the base models."""
    ray_workers: RayWorkers | None = None
    """None trains in this process."""
    tf1_python: Path | None = None
    """The interpreter of the gpt-2-simple engine."""
    resume_hint: str = "the same command"
    """What a message says continues an interrupted training."""
    on_first_change: Callable[[], None] = lambda: None
    """The engine calls it as soon as it has changed the run; until then a failure leaves the run as it was."""


def default_learning_rate(hyperparameters: Hyperparameters, train: str = "full") -> float:
    """gpt-2-simple's 1e-4 at 124M's width, and more for narrower models: 3e-4 for mini, the best of four by trial."""
    return 1e-4 * 768 / hyperparameters.n_embd * (ADAPTER_RATE_FACTOR if train == "lora" else 1)


def interrupted_error(step: int, job: TrainingJob) -> Interrupted:
    """The error that an engine raises after it was asked to stop and has saved."""
    return Interrupted(f"{job.run.path}: saved at step {step}; {job.resume_hint} goes on from there")


# --- Sampling ---


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are drawn: `top_k` 0 and `top_p` 0 switch those off; `temperature` 0 takes the likeliest token."""

    temperature: float
    top_k: int
    top_p: float
    length: int
    """The most tokens written after a prompt."""
    repetition_penalty: float = 1.0


@dataclass(frozen=True, kw_only=True)
class SamplerOptions:
    """In which blocks and precision texts are sampled, and where."""

    block_size: int
    """Prompts sampled together; another size gives other texts."""
    precision: str = AUTO
    """auto, float32 or int8."""
    ray_address: str | None = None
    """A ray cluster to sample on; None samples in this process."""
    tf1_python: Path | None = None
    """The interpreter of the gpt-2-simple engine."""


def block_size(asked: str, hyperparameters: Hyperparameters, length: int) -> int:
    """How many prompts a block has: the number asked for, or for `auto` one that follows from the model's size alone.

    It does not depend on the machine, since another size gives other texts.
    """
    if asked != AUTO:
        return int(asked)
    rows = CACHE_BYTES // cache_bytes(hyperparameters, 1, length)
    return min(MAX_BLOCK_ROWS, 1 << max(rows, 1).bit_length() - 1)  # a power of two


def cache_bytes(hyperparameters: Hyperparameters, rows: int, length: int) -> int:
    """The bytes of a block's keys and values, where it writes texts of full length after prompts of a few tokens."""
    per_token = 2 * hyperparameters.n_layer * hyperparameters.n_embd * 4  # a float32 key and value in every layer
    return rows * per_token * min(length, hyperparameters.n_ctx)


def cut_after_end_token(text: str) -> str:
    """The text through its first end token, or all of it where it has none."""
    head, end, _ = text.partition(END_TOKEN)
    return head + end
