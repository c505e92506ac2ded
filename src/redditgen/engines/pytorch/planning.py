"""The start of a training: the plan that fits the memory, and the weights and adapters that it starts from."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from redditgen.engines.base import TrainingJob
from redditgen.engines.data.examples import DynamicExamples
from redditgen.engines.data.token_stream import TokenStream
from redditgen.engines.pytorch import device
from redditgen.engines.pytorch.memory_plan import (
    FIXED_OVERHEAD,
    Plan,
    PlanRequest,
    Workload,
    choose_plan,
    predict_peak,
    usable_memory,
)
from redditgen.engines.pytorch.parallel import SINGLE_PROCESS, Ranks
from redditgen.errors import InputError, MissingError, UsageError
from redditgen.files.atomic import file_sha256
from redditgen.gpt2.find import find_model, open_model
from redditgen.gpt2.formats.adapters import NO_BASE, AdapterBase, AdapterDir
from redditgen.gpt2.model_dir import AnyModelDir, ModelDir

DEFAULT_LORA_RANK = 16
_LENGTH_SAMPLE = 4096  # records of DynamicExamples that are tokenized to estimate the longest

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StartingWeights:
    """The weights that a training starts from."""

    model: AnyModelDir
    """The model directory whose weights are loaded."""
    base: AdapterBase
    """How adapters on these weights name them; NO_BASE without adapters."""
    adapters: Path | None
    """The folder of the adapters to continue training; None starts with new ones, or trains without."""
    is_resumed: bool
    """Whether the trained parameters continue those of the run, so that its optimizer state applies to them."""


def plan_for_job(job: TrainingJob, batch: int, ranks: Ranks = SINGLE_PROCESS) -> Plan:
    """Return the plan for a training, and log it with the memory that it will take.

    `batch` is the rows of a batch in each of the `ranks`. Raises InputError where no plan fits, MissingError where the
    options need bitsandbytes and it is not installed, and UsageError where they ask for another rank than the run's.
    """
    torch_device = device.best_device()
    options, optimizer = job.plan, job.optimizer
    memory = options.memory or device.available_device_memory(torch_device, ranks.count_on_node)
    adapters = _resumed_adapters(job)
    asked = PlanRequest(
        precision=device.choose_precision(torch_device, options.precision),
        train=options.train or ("lora" if adapters else None),
        checkpointing=options.memory_saving_gradients,
        weight_bits=options.weight_bits,
        lora_rank=_adapter_rank(options.lora_rank, adapters),
        has_bitsandbytes=find_spec("bitsandbytes") is not None,
    )
    work = Workload(
        job.initial_model.hyperparameters(),
        batch,
        _longest_row(job),
        accumulated=optimizer.accumulate_gradients or 1,
        optimizer=optimizer.name,
        device=torch_device.type,
        is_shared=ranks.count > 1,
    )
    plan = choose_plan(work, asked, usable_memory(memory))
    peak = (predict_peak(work, plan) + FIXED_OVERHEAD) / 1e9
    source = "by --memory" if options.memory else "that are free"
    _log.info("plan: %s; at most %.1f GB of %.1f GB %s", plan, peak, memory / 1e9, source)
    return plan


def starting_weights(job: TrainingJob, plan: Plan) -> StartingWeights:
    """Return what to load for a plan.

    Where the weights under a run's adapters are gone, logs a warning, and starts new adapters on the run's merged
    weights. Raises MissingError where the index of those weights is missing.
    """
    adapters = _resumed_adapters(job)
    if plan.train != "lora":
        return StartingWeights(job.initial_model, NO_BASE, None, is_resumed=bool(job.schedule.start))
    if adapters:
        if weights := _find_base_model(adapters.base(), job):
            return StartingWeights(weights, adapters.base(), adapters.path, is_resumed=True)
        _log.warning(
            "%s: the weights that they lie on, %s, are no longer there; new adapters begin on the run's own weights",
            adapters.path,
            adapters.base().path,
        )
    weights = job.initial_model
    if isinstance(weights, ModelDir) and weights.step():
        weights = ModelDir(weights.path, weights.step())  # fixes the step, since the run saves later ones
    return StartingWeights(weights, _adapter_base(weights, job), None, is_resumed=False)


def _resumed_adapters(job: TrainingJob) -> AdapterDir | None:
    """Return the adapters that a resumed training continues, or None."""
    return job.run.adapters() if job.schedule.start and job.plan.train in (None, "lora") else None


def _adapter_rank(asked: int | None, adapters: AdapterDir | None) -> int:
    """Return the rank of the adapters. Raises UsageError where `asked` differs from that of the run's adapters."""
    if adapters is None:
        return asked or DEFAULT_LORA_RANK
    if asked not in (None, adapters.rank()):
        raise UsageError(
            f"--lora-rank: the run's adapters have rank {adapters.rank()} and keep it; start another run, with "
            f"--restore-from {adapters.path.parent}"
        )
    return adapters.rank()


def _adapter_base(weights: AnyModelDir, job: TrainingJob) -> AdapterBase:
    """Return how adapters name the weights under them: a path and a SHA-256 hash of the weights' file.

    For a checkpoint of the run itself, the path is the checkpoint's name, so that the run can be moved. For a
    TensorFlow checkpoint, the hashed file is the index. Raises MissingError where that is missing.
    """
    if not isinstance(weights, ModelDir):
        return AdapterBase(str(weights.path), file_sha256(weights.weights_file()))
    index = Path(f"{weights.checkpoint_prefix()}.index")  # holds a checksum of every tensor
    if not index.is_file():
        raise MissingError(f"{index}: not there; copy or download the model anew")
    path = weights.checkpoint_prefix().name if weights.path == job.run.path else str(weights.path)
    return AdapterBase(path, file_sha256(index))


def _find_base_model(base: AdapterBase, job: TrainingJob) -> AnyModelDir | None:
    """Return the model whose weights are under a run's adapters, or None where it is not found.

    It may be an earlier checkpoint of the run, at the path that the adapters name, or the run's model by its name.
    """
    candidates: tuple[Callable[[], AnyModelDir], ...] = (
        lambda: ModelDir(job.run.path, int(base.path.removeprefix("model-"))),
        lambda: open_model(Path(base.path)),
        lambda: find_model(job.run.run_info().model, job.model_dir),
    )
    for open_candidate in candidates:
        try:
            if _adapter_base(weights := open_candidate(), job).revision == base.revision:
                return weights
        except (MissingError, InputError, ValueError):  # ValueError: the adapters' path is no checkpoint's name
            continue
    return None


def _longest_row(job: TrainingJob) -> int:
    """Return the most tokens of a record, or of a window, to train on; an estimate for DynamicExamples."""
    data, context = job.dataset.train, job.initial_model.hyperparameters().n_ctx
    if isinstance(data, TokenStream):
        return min(job.optimizer.window, context)
    if isinstance(data, DynamicExamples):
        data = data.pool(0, range(min(len(data), _LENGTH_SAMPLE)))
    return int(data.sequences.lengths.max(initial=1))
