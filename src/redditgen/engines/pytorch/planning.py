"""What a finetuning begins with: the plan that fits the memory, and the weights and adapters that it goes on from."""

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

DEFAULT_LORA_RANK = 16  # of LoRA
_LOOKED_AT = 4096  # records whose lengths say how long those get that are tokenized only when they are needed

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StartingWeights:
    """The weights to load, and the adapters on them to go on with; with new ones nothing of an optimizer is left."""

    model: AnyModelDir
    base: AdapterBase
    adapters: Path | None
    is_resumed: bool


def plan_for_job(job: TrainingJob, batch: int, ranks: Ranks = SINGLE_PROCESS) -> Plan:
    """The plan for a finetuning with batches of `batch`, in each of some ranks; logs it with the memory it will take.

    Raises InputError where none fits, and MissingError where bitsandbytes would be needed and is not there.
    """
    on = device.best_device()
    options, optimizer = job.plan, job.optimizer
    memory = options.memory or device.available_device_memory(on, ranks.here)
    adapters = _adapters(job)
    asked = PlanRequest(
        precision=device.choose_precision(on, options.precision),
        train=options.train or ("lora" if adapters else None),
        checkpointing=options.memory_saving_gradients,
        weight_bits=options.weight_bits,
        lora_rank=_rank(options.lora_rank, adapters),
        has_bitsandbytes=find_spec("bitsandbytes") is not None,
    )
    work = Workload(
        job.initial_model.hyperparameters(),
        batch,
        _longest(job),
        accumulated=optimizer.accumulate_gradients or 1,
        optimizer=optimizer.name,
        device=on.type,
        is_shared=ranks.count > 1,
    )
    found = choose_plan(work, asked, usable_memory(memory))
    peak = (predict_peak(work, found) + FIXED_OVERHEAD) / 1e9
    where = "by --memory" if options.memory else "that are free"
    _log.info("plan: %s; at most %.1f GB of %.1f GB %s", found, peak, memory / 1e9, where)
    return found


def starting_weights(job: TrainingJob, plan: Plan) -> StartingWeights:
    """What to load for a plan. Adapters whose weights are gone are left, and new ones begun on the merged weights."""
    adapters = _adapters(job)
    if plan.train != "lora":
        return StartingWeights(job.initial_model, NO_BASE, None, is_resumed=bool(job.schedule.start))
    if adapters:
        if weights := _model_below(adapters.base(), job):
            return StartingWeights(weights, adapters.base(), adapters.path, is_resumed=True)
        _log.warning(
            "%s: the weights that they lie on, %s, are no longer there; new adapters begin on the run's own weights",
            adapters.path,
            adapters.base().path,
        )
    weights = job.initial_model
    if isinstance(weights, ModelDir) and weights.step():
        weights = ModelDir(weights.path, weights.step())  # this one, whatever comes after it
    return StartingWeights(weights, _base(weights, job), None, is_resumed=False)


def _adapters(job: TrainingJob) -> AdapterDir | None:
    """Those that the run goes on with."""
    return job.run.adapters() if job.schedule.start and job.plan.train in (None, "lora") else None


def _rank(asked: int | None, adapters: AdapterDir | None) -> int:
    if adapters is None:
        return asked or DEFAULT_LORA_RANK
    if asked not in (None, adapters.rank()):
        raise UsageError(
            f"--lora-rank: the run's adapters have rank {adapters.rank()} and keep it; start another run, with "
            f"--restore-from {adapters.path.parent}"
        )
    return adapters.rank()


def _base(weights: AnyModelDir, job: TrainingJob) -> AdapterBase:
    """How adapters name what they lie on: by its folder, or, if it is a checkpoint of the run itself, by its name."""
    if not isinstance(weights, ModelDir):
        return AdapterBase(str(weights.path), file_sha256(weights.weights_file()))
    index = Path(f"{weights.checkpoint_prefix()}.index")  # which holds a checksum of every tensor
    if not index.is_file():
        raise MissingError(f"{index}: not there; copy or download the model anew")
    path = weights.checkpoint_prefix().name if weights.path == job.run.path else str(weights.path)
    return AdapterBase(path, file_sha256(index))


def _model_below(base: AdapterBase, job: TrainingJob) -> AnyModelDir | None:
    """The weights that adapters lie on, if they are where they were, or where the run's model is now."""
    places: tuple[Callable[[], AnyModelDir], ...] = (
        lambda: ModelDir(job.run.path, int(base.path.removeprefix("model-"))),
        lambda: open_model(Path(base.path)),
        lambda: find_model(job.run.run_info().model, job.model_dir),
    )
    for place in places:
        try:
            if _base(weights := place(), job).revision == base.revision:
                return weights
        except (MissingError, InputError, ValueError):  # the last where the name is not that of a step
            continue
    return None


def _longest(job: TrainingJob) -> int:
    """The most tokens of a record, or of a window, to train on."""
    data, context = job.dataset.train, job.initial_model.hyperparameters().n_ctx
    if isinstance(data, TokenStream):
        return min(job.optimizer.window, context)
    if isinstance(data, DynamicExamples):
        data = data.pool(0, range(min(len(data), _LOOKED_AT)))
    return int(data.sequences.lengths.max(initial=1))
