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
from redditgen.gpt2 import huggingface, huggingface_tokenizer
from redditgen.gpt2.ctranslate2_model import specification
from redditgen.gpt2.places import find_model, find_run
from redditgen.gpt2.rundir import ModelDir
from redditgen.gpt2.tokenizer import Tokenizer
from redditgen.gpt2.weights import Hparams
from redditgen.locks import writing_alone
from redditgen.model_card import SNIPPETS, model_card
from redditgen.output import left_beside, temporary_name, whole_folder, writing
from redditgen.progress import going_on
from redditgen.settings import ExportSettings
from redditgen.sidecar import BESIDES, made_before, sidecar_path, write_sidecar

if TYPE_CHECKING:
    from redditgen.gpt2.weights import Tensors

_META = "redditgen"
_ASIDE = "old"  # how the names of replaced folders end
_LAYOUTS = {"hf": "Hugging Face's", "ct2": "CTranslate2's", "tf": "OpenAI's"}

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Model:
    """What an exported folder is made of."""

    hparams: Hparams
    tokenizer: Tokenizer
    tensors: "Tensors"


def export(settings: ExportSettings) -> Path:
    """Write the folder that the settings name and give its path."""
    out, run = settings.output, _run(settings)
    source = run or find_model(settings.model or "", settings.model_dir)
    inputs, facts = [source.weights()], {"step": run.step() if run else None}
    sidecar = sidecar_path(out / _META)
    _tidy(out)
    if settings.skip_existing and made_before(out, settings, inputs=inputs, but=BESIDES, facts=facts, sidecar=sidecar):
        return out
    with writing_alone(out), going_on(f"exporting to {out}"):
        _refuse_existing(out, settings.overwrite)
        model = _Model(source.hparams(), source.tokenizer(), source.tensors())
        with whole_folder(out) as temporary:
            _WRITERS[settings.to](temporary, model)
            if run and settings.to in SNIPPETS:
                card = model_card(settings.name, run.step(), run.mark(), model.hparams, to=settings.to)
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
    huggingface.write(folder, model.hparams, model.tokenizer, model.tensors)


def _write_ct2(folder: Path, model: _Model) -> None:
    specification(model.hparams, model.tokenizer, model.tensors).save(str(folder))
    huggingface_tokenizer.write(folder, model.tokenizer, model.hparams.n_ctx)


def _write_tf(folder: Path, model: _Model) -> None:
    ModelDir(folder).write_base(model.hparams, model.tokenizer, model.tensors)


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
    for aside in left_beside(out, _ASIDE):
        if out.exists():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            with writing(out):
                aside.replace(out)
