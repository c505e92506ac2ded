"""What a finetuning begins with: the plan that fits the memory, and the weights and adapters that it goes on from."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from redditgen.engines import Job
from redditgen.errors import InputError, MissingError, UsageError
from redditgen.gpt2 import device
from redditgen.gpt2.examples import DynamicExamples
from redditgen.gpt2.lora import NOWHERE, AdapterDir, Base
from redditgen.gpt2.memory import OUTSIDE, Asked, Plan, Work, chosen, predicted, room
from redditgen.gpt2.parallel import ALONE, Ranks
from redditgen.gpt2.places import find_model, model_at
from redditgen.gpt2.rundir import ModelDir, Weights
from redditgen.gpt2.windows import Stream
from redditgen.options import byte_count
from redditgen.output import sha256
from redditgen.settings import FinetuneSettings

RANK = 16  # of LoRA
_LOOKED_AT = 4096  # records whose lengths say how long those get that are tokenized only when they are needed

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Beginning:
    """The weights to load, and the adapters on them to go on with; with new ones nothing of an optimizer is left."""

    weights: Weights
    base: Base
    adapters: Path | None
    is_resumed: bool


def plan(settings: FinetuneSettings, job: Job, batch: int, ranks: Ranks = ALONE) -> Plan:
    """The plan for a finetuning with batches of `batch`, in each of some ranks; logs it with the memory it will take.

    Raises InputError where none fits, and MissingError where bitsandbytes would be needed and is not there.
    """
    on = device.best_device()
    memory = byte_count("--memory", settings.memory) if settings.memory else device.available_memory(on, ranks.here)
    adapters = _adapters(settings, job)
    asked = Asked(
        precision=device.precision_on(on, settings.precision),
        train=settings.trained or ("lora" if adapters else None),
        checkpointing=settings.memory_saving_gradients,
        weight_bits=settings.weight_bits,
        lora_rank=_rank(settings, adapters),
        has_bitsandbytes=find_spec("bitsandbytes") is not None,
    )
    work = Work(
        job.weights.hparams(),
        batch,
        _longest(job, settings.window),
        accumulated=settings.accumulate_gradients or 1,
        optimizer=settings.optimizer,
        device=on.type,
        is_shared=ranks.count > 1,
    )
    found = chosen(work, asked, room(memory))
    peak = (predicted(work, found) + OUTSIDE) / 1e9
    _log.info("plan: %s; at most %.1f GB of %.1f GB %s", found, peak, memory / 1e9, _where(settings))
    return found


def beginning(settings: FinetuneSettings, job: Job, plan: Plan) -> Beginning:
    """What to load for a plan. Adapters whose weights are gone are left, and new ones begun on the merged weights."""
    adapters = _adapters(settings, job)
    if plan.train != "lora":
        return Beginning(job.weights, NOWHERE, None, is_resumed=bool(job.start))
    if adapters:
        if weights := _below(adapters.base(), settings, job):
            return Beginning(weights, adapters.base(), adapters.path, is_resumed=True)
        _log.warning(
            "%s: the weights that they lie on, %s, are no longer there; new adapters begin on the run's own weights",
            adapters.path,
            adapters.base().path,
        )
    weights = job.weights
    if isinstance(weights, ModelDir) and weights.step():
        weights = ModelDir(weights.path, weights.step())  # this one, whatever comes after it
    return Beginning(weights, _base(weights, job), None, is_resumed=False)


def _adapters(settings: FinetuneSettings, job: Job) -> AdapterDir | None:
    """Those that the run goes on with."""
    return job.run.adapters() if job.start and settings.trained in (None, "lora") else None


def _rank(settings: FinetuneSettings, adapters: AdapterDir | None) -> int:
    if adapters is None:
        return settings.lora_rank or RANK
    if settings.lora_rank not in (None, adapters.rank()):
        raise UsageError(
            f"--lora-rank: the run's adapters have rank {adapters.rank()} and keep it; start another run, with "
            f"--restore-from {adapters.path.parent}"
        )
    return adapters.rank()


def _base(weights: Weights, job: Job) -> Base:
    """How adapters name what they lie on: by its folder, or, if it is a checkpoint of the run itself, by its name."""
    if not isinstance(weights, ModelDir):
        return Base(str(weights.path), sha256(weights.weights()))
    index = Path(f"{weights.latest()}.index")  # which holds a checksum of every tensor
    if not index.is_file():
        raise MissingError(f"{index}: not there; copy or download the model anew")
    path = weights.latest().name if weights.path == job.run.path else str(weights.path)
    return Base(path, sha256(index))


def _below(base: Base, settings: FinetuneSettings, job: Job) -> Weights | None:
    """The weights that adapters lie on, if they are where they were, or where the run's model is now."""
    places: tuple[Callable[[], Weights], ...] = (
        lambda: ModelDir(job.run.path, int(base.path.removeprefix("model-"))),
        lambda: model_at(Path(base.path)),
        lambda: find_model(job.run.mark().model, settings.model_dir),
    )
    for place in places:
        try:
            if _base(weights := place(), job).revision == base.revision:
                return weights
        except (MissingError, InputError, ValueError):  # the last where the name is not that of a step
            continue
    return None


def _longest(job: Job, window: int) -> int:
    """The most tokens of a record, or of a window, to train on."""
    data, context = job.dataset.train, job.weights.hparams().n_ctx
    if isinstance(data, Stream):
        return min(window, context)
    if isinstance(data, DynamicExamples):
        data = data.pool(0, range(min(len(data), _LOOKED_AT)))
    return int(data.sequences.lengths.max(initial=1))


def _where(settings: FinetuneSettings) -> str:
    return "by --memory" if settings.memory else "that are free"
