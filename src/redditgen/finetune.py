"""Finetuning: which weights a run starts from and where it ends; the engine does the rest."""

import logging

from redditgen.engines import torch_engine
from redditgen.errors import OutputExists, UsageError
from redditgen.gpt2.rundir import COMPACT, Mark, ModelDir, find_model
from redditgen.settings import FinetuneSettings

_log = logging.getLogger(__name__)


def finetune(settings: FinetuneSettings) -> int:
    """Train until the step that the settings name and give the step reached. A finished run is left as it is."""
    run = ModelDir(settings.checkpoint_dir / settings.run)
    job = _going_on(run, settings) if _is_resumed(run, settings) else _fresh(run, settings)
    if job.start >= job.end:
        _log.info("run %s is at step %d already; --more N goes on", settings.run, job.start)
        return job.start
    return torch_engine.finetune(settings, job)


def _is_resumed(run: ModelDir, settings: FinetuneSettings) -> bool:
    exists = (run.path / "checkpoint").exists()
    if settings.restore_from == "fresh" and exists:
        if not settings.overwrite:
            raise OutputExists(
                f"{run.path}: run {settings.run} already exists; --restore-from latest goes on with it, "
                "--overwrite replaces it, --run makes another"
            )
        return False
    return exists


def _fresh(run: ModelDir, settings: FinetuneSettings) -> torch_engine.Job:
    name = settings.model or "mini"
    return torch_engine.Job(
        run=run,
        weights=find_model(name, settings.model_dir),
        mark=Mark(record_tokens=settings.record_tokens or COMPACT, model=name),
        start=0,
        end=settings.more or settings.steps,
    )


def _going_on(run: ModelDir, settings: FinetuneSettings) -> torch_engine.Job:
    mark, start = run.mark(), run.step()
    if not start:
        raise UsageError(f"--run: {run.path} is a base model, not a run; give the run another name or --checkpoint-dir")
    if settings.record_tokens not in (None, mark.record_tokens):
        raise UsageError(
            f"--record-tokens: run {settings.run} has {mark.record_tokens} ones and keeps them; start another run"
        )
    if settings.model and mark.model and settings.model != mark.model:
        raise UsageError(f"--model: run {settings.run} began from {mark.model}; start another run for {settings.model}")
    return torch_engine.Job(
        run=run,
        weights=run,
        mark=mark,
        start=start,
        end=start + settings.more if settings.more else settings.steps,
    )
