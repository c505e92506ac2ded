"""Finds the weights that training starts from: a base model, another run, or the run's own newest checkpoint."""

from dataclasses import dataclass
from pathlib import Path

from redditgen.errors import UsageError
from redditgen.finetune.run_state import is_resumed
from redditgen.gpt2.find import find_model, open_model
from redditgen.gpt2.model_dir import AnyModelDir, ModelDir
from redditgen.gpt2.run_info import COMPACT_TOKENS, LITERAL_TOKENS, NO_RECORDS, RunInfo
from redditgen.settings import FinetuneSettings


@dataclass(frozen=True)
class StartingPoint:
    """The model with the first weights, the run info that the run starts with, and the steps it was trained before."""

    model: AnyModelDir
    run_info: RunInfo
    step: int


def find_starting_point(settings: FinetuneSettings, run: ModelDir) -> StartingPoint:
    """Return the starting point that the settings name.

    Raises OutputExists where the run exists and may not be replaced, UsageError where the settings contradict the run
    info, and MissingError where a model is missing.
    """
    if is_resumed(settings, run):
        return _resumed(run, settings)
    if settings.restore_from not in ("latest", "fresh"):
        return _from_folder(Path(settings.restore_from), settings)
    name = settings.model or "mini"
    return StartingPoint(find_model(name, settings.model_dir), _new_run_info(name, settings), step=0)


def _new_run_info(model: str, settings: FinetuneSettings) -> RunInfo:
    # gpt-2-simple itself should be able to continue a run that its engine starts, and it knows only literal tokens.
    default = LITERAL_TOKENS if settings.engine == "gpt-2-simple" else COMPACT_TOKENS
    return RunInfo(record_tokens=settings.record_tokens or default, model=model)


def _from_folder(folder: Path, settings: FinetuneSettings) -> StartingPoint:
    """Start a new run from the model in `folder`; where that is a run on records, keep its record tokens."""
    model = open_model(folder)
    if folder.resolve() == (settings.checkpoint_dir / settings.run).resolve():
        raise UsageError(f"--restore-from: {folder} is the run itself; latest goes on with it")
    if not (isinstance(model, ModelDir) and model.step()):
        return StartingPoint(model, _new_run_info(str(folder), settings), step=0)
    other = model.run_info()
    if other.record_tokens == NO_RECORDS:
        return StartingPoint(model, _new_run_info(other.model, settings), step=0)
    _check_record_tokens(other, settings, f"the run in {folder}")
    run_info = RunInfo(record_tokens=other.record_tokens, model=other.model or str(folder))
    return StartingPoint(model, run_info, step=0)


def _resumed(run: ModelDir, settings: FinetuneSettings) -> StartingPoint:
    """Start from the run's own newest checkpoint."""
    run_info, step = run.run_info(), run.step()
    if not step:
        raise UsageError(f"--run: {run.path} is a base model, not a run; give the run another name or --checkpoint-dir")
    _check_record_tokens(run_info, settings, f"run {settings.run}")
    if settings.model and run_info.model and settings.model != run_info.model:
        raise UsageError(
            f"--model: run {settings.run} began from {run_info.model}; start another run for {settings.model}"
        )
    return StartingPoint(run, run_info, step)


def _check_record_tokens(run_info: RunInfo, settings: FinetuneSettings, which_run: str) -> None:
    """Raise UsageError where the settings ask for other record tokens than those of the run."""
    if run_info.record_tokens != NO_RECORDS and settings.record_tokens not in (None, run_info.record_tokens):
        raise UsageError(
            f"--record-tokens: {which_run} has {run_info.record_tokens} ones and keeps them; start another run"
        )
