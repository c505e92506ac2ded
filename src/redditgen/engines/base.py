"""The interface between the stages and the engines: two functions that an engine provides, and their arguments.

    finetune(job)                         trains a run and returns the step it reached
    open_writer(run, sampling, options)   a context manager that yields a WriteTexts function

A text is a prompt followed by the model's continuation, through the end token if the model wrote one. Engines know
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
BLOCKS_AT_ONCE = 8  # the most blocks of prompts that one call of a WriteTexts function gets
MAX_BLOCK_ROWS = 128  # prompts; larger blocks are no faster
ADAPTER_RATE_FACTOR = 10  # LoRA's default learning rate, as a multiple of the one for training the weights themselves
CACHE_BYTES = 2**30  # the most bytes for the attention keys and values of a block of automatic size

WriteTexts = Callable[[Sequence[str], int], Generator[str]]
"""A function of prompts and a seed. It yields one text a prompt, in the order of the prompts."""


# --- Training ---


@dataclass(frozen=True, kw_only=True)
class OptimizerOptions:
    """How each step changes the weights; None means the engine's own default."""

    name: str
    """`adam`, or `sgd`: plain gradient descent at a constant learning rate, without gradient clipping."""
    learning_rate: float | None
    batch_size: int | None
    """Records (or windows of plain text) in a batch; with several ray workers, in the batch of each worker."""
    accumulate_gradients: int | None
    """Batches whose gradients are added up for one step."""
    window: int
    """Tokens in a window of plain text."""
    seed: int
    """Seed of the order of records, and of the choice of windows."""


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """Which parameters are trained, in which precision and memory; None leaves the choice to the engine."""

    train: str | None
    """`full`, `layers`, `head` or `lora`."""
    precision: str
    """`auto`, `float32`, `bfloat16` or `float16`."""
    memory: int | None
    """The memory, in bytes, that the training may take; None takes what is free."""
    memory_saving_gradients: bool
    """Recompute the layers' activations in the backward pass (activation checkpointing)."""
    weight_bits: int | None
    """Bits of each frozen weight under LoRA adapters: 32, 16, 8 or 4."""
    lora_rank: int | None


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The steps of a training: the first and the last, and the steps after which it measures and reports."""

    start: int
    """Steps that the run has already taken."""
    end: int
    """The last step."""
    deadline: float = math.inf
    """The time, on the clock of time.monotonic, at which the training saves and ends even before its last step."""
    deadline_reason: str = ""
    """The name of the deadline in messages."""
    val_every: int
    """Steps between measurements of the held-out loss; 0 measures only at the start and the end."""
    print_every: int
    """Steps between reports of the training loss; 0 makes none of these."""
    early_stop: int | None
    """Stop after this many measurements of the held-out loss in a row without a new lowest one; None never does."""
    early_stop_from: int = 0
    """Only measurements after this step count towards `early_stop`."""


@dataclass(frozen=True, kw_only=True)
class CheckpointOptions:
    """When checkpoints are saved, and which of them are kept."""

    save_every: int
    """Steps between checkpoints; 0 saves only at the end."""
    max_checkpoints: int
    """How many of the newest checkpoints are kept; 0 keeps all."""
    keep_best: bool
    """Also save and keep the checkpoint with the lowest held-out loss."""
    plot: bool
    """Plot the losses to a PNG at each save."""


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """The sample texts that a training writes while it runs."""

    every: int
    """Steps between samples; 0 writes none."""
    number: int
    """Texts each time."""
    length: int
    """The most tokens of a text."""
    folder: Path
    """The folder in which each run has its own folder of samples."""


@dataclass(frozen=True, kw_only=True)
class RayWorkers:
    """How many ray workers train together, and on which cluster; without a number the cluster's size decides."""

    number: int | None
    address: str | None


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """One call of `finetune`: the run to train, its initial weights, the dataset and all options."""

    run: ModelDir
    initial_model: AnyModelDir
    """The model whose weights training starts from: a base model, another run, or the run itself."""
    dataset: Dataset
    optimizer: OptimizerOptions
    plan: PlanOptions
    schedule: Schedule
    checkpoints: CheckpointOptions
    samples: SampleOptions
    model_dir: Path
    """The folder of the base models."""
    ray_workers: RayWorkers | None = None
    """None trains in this process."""
    tf1_python: Path | None = None
    """The Python interpreter that runs the gpt-2-simple engine."""
    resume_hint: str = "the same command"
    """What continues an interrupted training, for messages."""
    on_first_change: Callable[[], None] = lambda: None
    """A function that the engine calls once it has changed the run; until then a failure leaves the run as it was."""


def default_learning_rate(hyperparameters: Hyperparameters, train: str = "full") -> float:
    """Return the default learning rate of a model, in inverse proportion to its width, `n_embd`.

    At 124M's width of 768 it is gpt-2-simple's 1e-4. For mini it is 3e-4, the best of four values tried. LoRA takes
    ADAPTER_RATE_FACTOR times as much.
    """
    return 1e-4 * 768 / hyperparameters.n_embd * (ADAPTER_RATE_FACTOR if train == "lora" else 1)


def interrupted_error(step: int, job: TrainingJob) -> Interrupted:
    """Return the error that an engine raises after it was interrupted and has saved at `step`."""
    return Interrupted(f"{job.run.path}: saved at step {step}; {job.resume_hint} goes on from there")


# --- Sampling ---


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are sampled. `top_k` and `top_p` are off at 0; at `temperature` 0 the likeliest token is taken."""

    temperature: float
    top_k: int
    top_p: float
    length: int
    """The most tokens sampled after a prompt."""
    repetition_penalty: float = 1.0


@dataclass(frozen=True, kw_only=True)
class SamplerOptions:
    """How many texts are sampled together, in which precision, and on which machines."""

    block_size: int
    """Prompts in a block. A different size yields different texts for the same seed."""
    precision: str = AUTO
    """`auto`, `float32` or `int8`."""
    ray_address: str | None = None
    """A ray cluster to sample on; None samples in this process."""
    tf1_python: Path | None = None
    """The Python interpreter that runs the gpt-2-simple engine."""


def block_size(requested: str, hyperparameters: Hyperparameters, length: int) -> int:
    """Return the number of prompts in a block: `requested` as a number, or for `auto` one chosen for the model.

    The automatic size is the largest power of two, up to MAX_BLOCK_ROWS, whose keys and values fit CACHE_BYTES. It
    depends on the model and `length` alone, not on the machine, since a different size yields different texts.
    """
    if requested != AUTO:
        return int(requested)
    rows = CACHE_BYTES // cache_bytes(hyperparameters, 1, length)
    return min(MAX_BLOCK_ROWS, 1 << max(rows, 1).bit_length() - 1)  # a power of two


def cache_bytes(hyperparameters: Hyperparameters, rows: int, length: int) -> int:
    """Return the bytes of the float32 attention keys and values of `rows` texts of `length` tokens each.

    The few tokens of the prompts are not counted; no text is longer than the model's context.
    """
    per_token = 2 * hyperparameters.n_layer * hyperparameters.n_embd * 4  # a float32 key and a value in every layer
    return rows * per_token * min(length, hyperparameters.n_ctx)


def cut_after_end_token(text: str) -> str:
    """Return `text` through its first end token, or all of it where it has none."""
    head, end, _ = text.partition(END_TOKEN)
    return head + end
