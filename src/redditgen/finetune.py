"""Finetuning: which weights a run starts from, what it learns from and where it ends; the engine does the rest."""

import logging
import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from redditgen import dataset
from redditgen.engines import Job, gpt2simple, torch_engine
from redditgen.errors import OutputExists, UsageError
from redditgen.gpt2.mark import COMPACT, LITERAL, NO_RECORDS, Mark
from redditgen.gpt2.metrics import measured_since_best
from redditgen.gpt2.places import find_model, model_at
from redditgen.gpt2.plot import NAME as PLOT
from redditgen.gpt2.plot import plot
from redditgen.gpt2.rundir import BEGUN, FINISHED, ModelDir, Weights
from redditgen.locks import alone
from redditgen.novelty import NAME as INDEX
from redditgen.novelty import Index
from redditgen.output import make_folder
from redditgen.settings import FinetuneSettings
from redditgen.sidecar import hashes, made_before, sidecar_path, write_sidecar

# Settings that leave the weights as they are.
_BESIDES = (
    "overwrite", "skip_existing", "plot", "print_every", "sample_every", "sample_num", "sample_length", "sample_dir",
    "max_checkpoints", "time_limit", "num_workers", "ray_address", "tf1_python",
)  # fmt: skip
_ENGINES = {"torch": torch_engine.finetune, "gpt-2-simple": gpt2simple.finetune}

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Start:
    """Weights to start from, the mark of the run that they make, and the steps it has behind it."""

    weights: Weights
    mark: Mark
    step: int


def finetune(settings: FinetuneSettings) -> int:
    """Train until the step that the settings name and give the step reached. A finished run is left as it is.

    Raises RedditgenError where another process finetunes the same run.
    """
    run = ModelDir(settings.checkpoint_dir / settings.run)
    if settings.skip_existing and _is_made(settings, run):
        return run.step()
    deadline = math.inf if settings.seconds is None else time.monotonic() + settings.seconds
    with _claimed(run.path):
        step = _finetune(settings, run, deadline)
        if settings.plot:
            plot(run.metrics.reports(), run.path / PLOT)
    return step


@contextmanager
def _claimed(folder: Path) -> Iterator[None]:
    """Keep other finetunings off a run's folder. It is made if it is not there, and goes if nothing comes into it."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    make_folder(folder)
    try:
        with alone(folder, "finetuning this run"):
            yield
    finally:
        if missing and not (folder / "checkpoint").exists():
            (folder / INDEX).unlink(missing_ok=True)
        for place in missing:
            with suppress(OSError):  # of a folder that is not empty
                place.rmdir()


def _finetune(settings: FinetuneSettings, run: ModelDir, deadline: float) -> int:
    start = _going_on(run, settings) if _is_resumed(run, settings) else _fresh(settings)
    end = start.step + settings.more if settings.more else settings.steps
    is_stalled = start.weights == run and _has_stalled(settings, run)
    if start.step >= end or is_stalled:
        _finish_or_refuse(settings, run)
        how = "was stopped early" if is_stalled else "is already"
        _log.info("run %s %s at step %d; --more N goes on", settings.run, how, start.step)
        return start.step
    learned = dataset.read(settings, start.mark, start.weights.tokenizer(), start.weights.hparams().n_ctx)
    _remember(learned.titles, settings, run, start)
    learned = replace(learned, titles=())
    job = Job(
        run=run, weights=start.weights, dataset=learned, start=start.step, end=end, deadline=deadline,
        begun=partial(_note_beginning, settings, run, start),
    )  # fmt: skip
    step = _ENGINES[settings.engine](settings, job)
    if step >= end or _has_stalled(settings, run):
        _finish(settings, run)
    return step


def _finished(run: ModelDir) -> Path:
    """The sidecar that a run has as long as it is finished."""
    return sidecar_path(run.path / FINISHED)


def _inputs(settings: FinetuneSettings) -> list[Path]:
    """The files that a run is made of: what it learns from, and another run's weights."""
    paths = [path for name in (settings.dataset, settings.val) if name for path in dataset.files(name)]
    is_of_another = settings.restore_from not in ("latest", "fresh")
    return [*paths, model_at(Path(settings.restore_from)).weights()] if is_of_another else paths


def _is_made(settings: FinetuneSettings, run: ModelDir, name: str = FINISHED) -> bool:
    """Whether the run was finished by the same command, and is as it was left then; or begun, by the name BEGUN."""
    if not (sidecar := sidecar_path(run.path / name)).exists():
        return False
    inputs = _inputs(settings)
    found = made_before(run.path, settings, inputs=inputs, but=_BESIDES, written=run.weights(), sidecar=sidecar)
    return found is not None


def _finish_or_refuse(settings: FinetuneSettings, run: ModelDir) -> None:
    """Write the sidecar of a run that was killed just before it; of another one it was said before in what."""
    if not _finished(run).exists() and _is_made(settings, run, BEGUN):
        _finish(settings, run)
    elif settings.skip_existing and any(sidecar_path(run.path / name).exists() for name in (FINISHED, BEGUN)):
        raise OutputExists(
            f"{run.path}: run {settings.run} is finished; --restore-from fresh --overwrite makes it anew, "
            "--more N goes on with it, --run makes another"
        )


def _finish(settings: FinetuneSettings, run: ModelDir) -> None:
    write_sidecar(run.path / FINISHED, settings, inputs=_inputs(settings), written=run.weights(), step=run.step())


def _remember(titles: Iterable[str], settings: FinetuneSettings, run: ModelDir, start: _Start) -> None:
    """Keep the titles, and those that the weights have seen before, for `generate --novel`."""
    there = start.weights.path / INDEX if start.step or settings.restore_from not in ("latest", "fresh") else None
    before = Index.load(start.weights.path) if there and there.exists() else None
    index = before.extended(titles) if before else Index.of(titles)
    if not len(index):
        (run.path / INDEX).unlink(missing_ok=True)
    elif not (index is before and start.weights.path == run.path):
        index.save(run.path)


def _note_beginning(settings: FinetuneSettings, run: ModelDir, start: _Start) -> None:
    """Note what the run learns from now, and say so where it is going on and that is another than before."""
    _finished(run).unlink(missing_ok=True)
    noted = sidecar_path(run.path / BEGUN)
    before = hashes(noted)
    write_sidecar(run.path / BEGUN, settings, inputs=_inputs(settings))
    other = [name for name, found in hashes(noted).items() if found not in before.values()]
    if start.weights == run and before and other:
        _log.warning(
            "run %s: goes on with what it has not learned from before, %s; "
            "titles that were held out may now be learned", settings.run, ", ".join(other),
        )  # fmt: skip


def _has_stalled(settings: FinetuneSettings, run: ModelDir) -> bool:
    """Whether --early-stop has ended the run before, as far as its checkpoint."""
    if settings.early_stop is None or settings.more:
        return False
    reports = [report for report in run.metrics.reports() if report.step <= run.step()]
    return measured_since_best(reports, after=0) >= settings.early_stop


def _is_resumed(run: ModelDir, settings: FinetuneSettings) -> bool:
    exists = (run.path / "checkpoint").exists()
    if settings.restore_from != "latest" and exists:
        if settings.skip_existing and not _finished(run).exists():
            return True
        if not settings.overwrite:
            raise OutputExists(
                f"{run.path}: run {settings.run} already exists; --restore-from latest goes on with it, "
                "--overwrite replaces it, --run makes another"
            )
        return False
    return exists


def _fresh(settings: FinetuneSettings) -> _Start:
    if settings.restore_from not in ("latest", "fresh"):
        return _from(Path(settings.restore_from), settings)
    name = settings.model or "mini"
    return _Start(find_model(name, settings.model_dir), _new_mark(name, settings), step=0)


def _new_mark(model: str, settings: FinetuneSettings) -> Mark:
    # What gpt-2-simple begins, its own code should be able to go on with: it can only spell tokens out.
    usual = LITERAL if settings.engine == "gpt-2-simple" else COMPACT
    return Mark(record_tokens=settings.record_tokens or usual, model=model)


def _from(folder: Path, settings: FinetuneSettings) -> _Start:
    """A new run that begins with the weights of another, and reads records as that one did."""
    weights = model_at(folder)
    if folder.resolve() == (settings.checkpoint_dir / settings.run).resolve():
        raise UsageError(f"--restore-from: {folder} is the run itself; latest goes on with it")
    if not (isinstance(weights, ModelDir) and weights.step()):
        return _Start(weights, _new_mark(str(folder), settings), step=0)
    before = weights.mark()
    if before.record_tokens == NO_RECORDS:
        return _Start(weights, _new_mark(before.model, settings), step=0)
    _check_record_tokens(before, settings, f"the run in {folder}")
    return _Start(weights, Mark(record_tokens=before.record_tokens, model=before.model or str(folder)), step=0)


def _going_on(run: ModelDir, settings: FinetuneSettings) -> _Start:
    mark, step = run.mark(), run.step()
    if not step:
        raise UsageError(f"--run: {run.path} is a base model, not a run; give the run another name or --checkpoint-dir")
    _check_record_tokens(mark, settings, f"run {settings.run}")
    if settings.model and mark.model and settings.model != mark.model:
        raise UsageError(f"--model: run {settings.run} began from {mark.model}; start another run for {settings.model}")
    return _Start(run, mark, step)


def _check_record_tokens(mark: Mark, settings: FinetuneSettings, whose: str) -> None:
    if mark.record_tokens != NO_RECORDS and settings.record_tokens not in (None, mark.record_tokens):
        raise UsageError(f"--record-tokens: {whose} has {mark.record_tokens} ones and keeps them; start another run")
