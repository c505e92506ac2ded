"""Finds base models and runs by name, and opens a model directory in any layout that redditgen reads.

Where a model or a run is missing, the error lists those that exist, and the command that downloads or trains it.
"""

import logging
import shlex
from pathlib import Path

from redditgen.errors import MissingError, did_you_mean
from redditgen.files import bundled
from redditgen.gpt2.formats.hugging_face import HuggingFaceDir
from redditgen.gpt2.model_dir import BEST_STEP, AnyModelDir, ModelDir

OPENAI_MODELS = ("124M", "355M", "774M", "1558M")

_OLD_NAMES = {"117M": "124M", "345M": "355M"}  # OpenAI's first names for them, and the current ones

_log = logging.getLogger(__name__)


def find_model(name: str, model_dir: Path) -> AnyModelDir:
    """Return the base model with this path or name.

    A name that contains a folder is a path. Any other is looked up in `model_dir`, then among the models packaged with
    redditgen. Raises MissingError, which lists the models found, where there is none of this name.
    """
    if Path(name).name != name:
        return open_model(Path(name))
    candidates = [model_dir / name, bundled.path(f"models/{name}")]
    for candidate in candidates:
        if _holds_model(candidate):
            _log.debug("model %s: %s", name, candidate)
            return open_model(candidate)
    available = sorted({p.name for folder in candidates for p in folder.parent.glob("[!.]*") if _holds_model(p)})
    raise MissingError(
        f"model {name}: no {candidates[0] / 'hparams.json'}; the models there are: {', '.join(available) or 'none'}"
        + _download_hint(name, model_dir)
    )


def _download_hint(name: str, model_dir: Path) -> str:
    """Return the end of a message that tells how to download one of OpenAI's models; empty for any other model."""
    current = _OLD_NAMES.get(name, name)
    if current not in OPENAI_MODELS:
        return ""
    renamed = "" if current == name else f"; it is called {current} now"
    option = "" if model_dir == Path("models") else f" --model-dir {shlex.quote(str(model_dir))}"
    return f"{renamed}; get it with: redditgen download {current}{option}"


def _holds_model(path: Path) -> bool:
    return (path / "hparams.json").exists() or HuggingFaceDir.matches(path)


def open_model(path: Path) -> AnyModelDir:
    """Return the model in a folder, in the layout of OpenAI, gpt-2-simple or Hugging Face.

    Raises MissingError where the folder holds no model.
    """
    if (path / "hparams.json").exists():
        return ModelDir(path)
    if HuggingFaceDir.matches(path):
        return HuggingFaceDir(path)
    raise MissingError(
        f"{path}: is no folder of a GPT-2; it needs hparams.json (OpenAI's layout) or config.json (Hugging Face's)"
    )


def find_run(name: str, checkpoint_dir: Path, step: str | None = None) -> ModelDir:
    """Return the run of this name at its newest checkpoint, or at that of `step`, a number or "best".

    Raises MissingError, which lists the runs found, where there is none of this name; and, for "best", where no
    checkpoint has a held-out loss.
    """
    folder = checkpoint_dir / name
    if (folder / "checkpoint").exists():
        if step == BEST_STEP:
            return ModelDir(folder).best()
        # The newest step is fixed here, since a finetuning may add checkpoints while the run is being read.
        number = ModelDir(folder).step() or None if step is None else int(step)
        _log.debug("run %s: %s at step %s", name, folder, number)
        return ModelDir(folder, number)
    runs = sorted(p.parent.name for p in checkpoint_dir.glob("*/checkpoint"))
    raise MissingError(
        f"run {name}: no {folder / 'checkpoint'}; make it with: redditgen finetune DATASET --run {name} "
        f"(runs there are: {', '.join(runs) or 'none'}){did_you_mean(name, runs)}"
    )
