"""Where models and runs lie, found by name; what is not there is said with what is, and how to get it."""

import logging
import shlex
from pathlib import Path

from redditgen.errors import MissingError, did_you_mean
from redditgen.files import bundled
from redditgen.gpt2.formats.hugging_face import HuggingFaceDir
from redditgen.gpt2.model_dir import BEST_STEP, AnyModelDir, ModelDir

OPENAI_MODELS = ("124M", "355M", "774M", "1558M")

_OLD_NAMES = {"117M": "124M", "345M": "355M"}  # as OpenAI first called them

_log = logging.getLogger(__name__)


def find_model(name: str, model_dir: Path) -> AnyModelDir:
    """A base model by the path of its folder, or by name: in `model_dir`, else among those that come with redditgen."""
    if Path(name).name != name:
        return open_model(Path(name))
    places = [model_dir / name, bundled.path(f"models/{name}")]
    for place in places:
        if _holds_model(place):
            _log.debug("model %s: %s", name, place)
            return open_model(place)
    there = sorted({p.name for folder in places for p in folder.parent.glob("[!.]*") if _holds_model(p)})
    raise MissingError(
        f"model {name}: no {places[0] / 'hparams.json'}; the models there are: {', '.join(there) or 'none'}"
        + _how_to_get(name, model_dir)
    )


def _how_to_get(name: str, model_dir: Path) -> str:
    now = _OLD_NAMES.get(name, name)
    if now not in OPENAI_MODELS:
        return ""
    renamed = "" if now == name else f"; it is called {now} now"
    there = "" if model_dir == Path("models") else f" --model-dir {shlex.quote(str(model_dir))}"
    return f"{renamed}; get it with: redditgen download {now}{there}"


def _holds_model(path: Path) -> bool:
    return (path / "hparams.json").exists() or HuggingFaceDir.is_one(path)


def open_model(path: Path) -> AnyModelDir:
    """The model in a folder, of OpenAI's, gpt-2-simple's or Hugging Face's layout; raises MissingError if none is."""
    if (path / "hparams.json").exists():
        return ModelDir(path)
    if HuggingFaceDir.is_one(path):
        return HuggingFaceDir(path)
    raise MissingError(
        f"{path}: is no folder of a GPT-2; it needs hparams.json (OpenAI's layout) or config.json (Hugging Face's)"
    )


def find_run(name: str, checkpoint_dir: Path, step: str | None = None) -> ModelDir:
    """A run by name, at the step that is now its newest, or at `step`, a number or `best`.

    Raises MissingError naming what there is.
    """
    place = checkpoint_dir / name
    if (place / "checkpoint").exists():
        if step == BEST_STEP:
            return ModelDir(place).best()
        # Known from here on by its number: a finetuning of the run may go on meanwhile.
        number = ModelDir(place).step() or None if step is None else int(step)
        _log.debug("run %s: %s at step %s", name, place, number)
        return ModelDir(place, number)
    there = sorted(p.parent.name for p in checkpoint_dir.glob("*/checkpoint"))
    raise MissingError(
        f"run {name}: no {place / 'checkpoint'}; make it with: redditgen finetune DATASET --run {name} "
        f"(runs there are: {', '.join(there) or 'none'}){did_you_mean(name, there)}"
    )
