"""Runs and base models as folders that other programs read.

    hf   Hugging Face's layout, for transformers
    ct2  CTranslate2's, with the tokenizer's files of Hugging Face's
    tf   a base model in OpenAI's, for gpt-2-simple as models/NAME, and for finetune --model

In each folder lies `redditgen.meta.json`, a sidecar as other outputs have it beside them. It goes where the folder
goes, and by it a folder is known as an export, which alone --overwrite replaces.
"""

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from redditgen.errors import OutputExists
from redditgen.files.atomic import atomic_folder, leftover_temporaries, temporary_name, write_errors
from redditgen.files.locks import locked_output
from redditgen.files.sidecar import IGNORED_SETTINGS, find_up_to_date, sidecar_path, write_sidecar
from redditgen.gpt2.find import find_model, find_run
from redditgen.gpt2.formats import hugging_face, hugging_face_tokenizer
from redditgen.gpt2.formats.ctranslate2_model import model_specification
from redditgen.gpt2.hyperparameters import Hyperparameters
from redditgen.gpt2.model_dir import ModelDir
from redditgen.gpt2.tokenizer import Tokenizer
from redditgen.hub.model_card import SNIPPETS, format_model_card
from redditgen.runtime.progress import heartbeat
from redditgen.settings import ExportSettings

if TYPE_CHECKING:
    from redditgen.gpt2.tensor_names import Tensors

_META = "redditgen"
_ASIDE = "old"  # how the names of replaced folders end
_LAYOUTS = {"hf": "Hugging Face's", "ct2": "CTranslate2's", "tf": "OpenAI's"}

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Model:
    """What an exported folder is made of."""

    hyperparameters: Hyperparameters
    tokenizer: Tokenizer
    tensors: "Tensors"


def export(settings: ExportSettings) -> Path:
    """Write the folder that the settings name and give its path."""
    out, run = settings.output, _run(settings)
    source = run or find_model(settings.model or "", settings.model_dir)
    inputs, facts = [source.weights_file()], {"step": run.step() if run else None}
    sidecar = sidecar_path(out / _META)
    _tidy(out)
    if settings.skip_existing and find_up_to_date(
        out, settings, inputs=inputs, ignoring=IGNORED_SETTINGS, facts=facts, sidecar=sidecar
    ):
        return out
    with locked_output(out), heartbeat(f"exporting to {out}"):
        _refuse_existing(out, settings.overwrite)
        model = _Model(source.hyperparameters(), source.tokenizer(), source.tensors())
        with atomic_folder(out) as temporary:
            _WRITERS[settings.to](temporary, model)
            if run and settings.to in SNIPPETS:
                card = format_model_card(
                    settings.name, run.step(), run.run_info(), model.hyperparameters, to=settings.to
                )
                (temporary / "README.md").write_text(card, encoding="utf8")
            write_sidecar(temporary / _META, settings, inputs=inputs, step=facts["step"])
            _set_aside(out)
        _tidy(out)
    what = f"run {settings.name} at step {run.step()}" if run else f"model {settings.name}"
    _log.info("%s: %s in %s layout", out, what, _LAYOUTS[settings.to])
    return out


def _run(settings: ExportSettings) -> ModelDir | None:
    if settings.model is not None:
        return None
    return find_run(settings.run_name, settings.checkpoint_dir, settings.step)


def _write_hf(folder: Path, model: _Model) -> None:
    hugging_face.write_model(folder, model.hyperparameters, model.tokenizer, model.tensors)


def _write_ct2(folder: Path, model: _Model) -> None:
    model_specification(model.hyperparameters, model.tokenizer, model.tensors).save(str(folder))
    hugging_face_tokenizer.write_tokenizer(folder, model.tokenizer, model.hyperparameters.n_ctx)


def _write_tf(folder: Path, model: _Model) -> None:
    ModelDir(folder).write_base(model.hyperparameters, model.tokenizer, model.tensors)


_WRITERS: dict[str, Callable[[Path, _Model], None]] = {"hf": _write_hf, "ct2": _write_ct2, "tf": _write_tf}


def _refuse_existing(out: Path, overwrite: bool) -> None:
    if not out.exists():
        return
    if not overwrite:
        raise OutputExists(f"{out}: already exists; pass --overwrite to replace it, or --out for another name")
    if not sidecar_path(out / _META).is_file():
        raise OutputExists(f"{out}: is no export of redditgen's and stays as it is; give another name with --out")


def _set_aside(out: Path) -> None:
    """Rename what is there already, so that at no time less than a whole folder lies at its place."""
    if out.exists():
        out.replace(temporary_name(out, _ASIDE))


def _tidy(out: Path) -> None:
    """Delete what was set aside; what a process was killed before it put another one in its place comes back."""
    for aside in leftover_temporaries(out, _ASIDE):
        if out.exists():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            with write_errors(out):
                aside.replace(out)
