"""Export of runs and base models to folders that other programs read.

    hf   Hugging Face's layout, for transformers
    ct2  CTranslate2's layout, with the tokenizer files of Hugging Face's
    tf   a base model in OpenAI's layout, for gpt-2-simple as models/NAME, and for finetune --model

Each folder contains its sidecar, `redditgen.meta.json`, while the sidecar of another output is next to it. So it moves
with the folder and identifies it as an export; --overwrite replaces no other folder.
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

_SIDECAR_NAME = "redditgen"  # followed by .meta.json
_REPLACED_ENDING = "old"  # of the temporary names of folders that are being replaced
_LAYOUTS = {"hf": "Hugging Face's", "ct2": "CTranslate2's", "tf": "OpenAI's"}

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _LoadedModel:
    """The parts of a model that an exported folder is written from."""

    hyperparameters: Hyperparameters
    tokenizer: Tokenizer
    tensors: "Tensors"


def export(settings: ExportSettings) -> Path:
    """Write the folder that the settings name and return its path.

    Raises OutputExists where it exists and may not be replaced, MissingError where there is no such run or model.
    """
    out, run = settings.output, _find_run(settings)
    source = run or find_model(settings.model or "", settings.model_dir)
    inputs, facts = [source.weights_file()], {"step": run.step() if run else None}
    sidecar = sidecar_path(out / _SIDECAR_NAME)
    _clean_up_replaced(out)
    if settings.skip_existing and find_up_to_date(
        out, settings, inputs=inputs, ignoring=IGNORED_SETTINGS, facts=facts, sidecar=sidecar
    ):
        return out
    with locked_output(out), heartbeat(f"exporting to {out}"):
        _refuse_existing(out, settings.overwrite)
        model = _LoadedModel(source.hyperparameters(), source.tokenizer(), source.tensors())
        with atomic_folder(out) as temporary:
            _WRITERS[settings.to](temporary, model)
            if run and settings.to in SNIPPETS:
                card = format_model_card(
                    settings.name, run.step(), run.run_info(), model.hyperparameters, to=settings.to
                )
                (temporary / "README.md").write_text(card, encoding="utf8")
            write_sidecar(temporary / _SIDECAR_NAME, settings, inputs=inputs, step=facts["step"])
            _rename_existing(out)
        _clean_up_replaced(out)
    subject = f"run {settings.name} at step {run.step()}" if run else f"model {settings.name}"
    _log.info("%s: %s in %s layout", out, subject, _LAYOUTS[settings.to])
    return out


def _find_run(settings: ExportSettings) -> ModelDir | None:
    if settings.model is not None:
        return None
    return find_run(settings.run_name, settings.checkpoint_dir, settings.step)


def _write_hf(folder: Path, model: _LoadedModel) -> None:
    hugging_face.write_model(folder, model.hyperparameters, model.tokenizer, model.tensors)


def _write_ct2(folder: Path, model: _LoadedModel) -> None:
    model_specification(model.hyperparameters, model.tokenizer, model.tensors).save(str(folder))
    hugging_face_tokenizer.write_tokenizer(folder, model.tokenizer, model.hyperparameters.n_ctx)


def _write_tf(folder: Path, model: _LoadedModel) -> None:
    ModelDir(folder).write_base(model.hyperparameters, model.tokenizer, model.tensors)


_WRITERS: dict[str, Callable[[Path, _LoadedModel], None]] = {"hf": _write_hf, "ct2": _write_ct2, "tf": _write_tf}


def _refuse_existing(out: Path, overwrite: bool) -> None:
    if not out.exists():
        return
    if not overwrite:
        raise OutputExists(f"{out}: already exists; pass --overwrite to replace it, or --out for another name")
    if not sidecar_path(out / _SIDECAR_NAME).is_file():
        raise OutputExists(f"{out}: is no export of redditgen's and stays as it is; give another name with --out")


def _rename_existing(out: Path) -> None:
    """Rename an existing export, so that the name `out` never belongs to an incomplete folder."""
    if out.exists():
        out.replace(temporary_name(out, _REPLACED_ENDING))


def _clean_up_replaced(out: Path) -> None:
    """Delete the exports that `_rename_existing` renamed.

    Where there is no export, the process was killed before the new one was in place: the old one is renamed back.
    """
    for replaced in leftover_temporaries(out, _REPLACED_ENDING):
        if out.exists():
            shutil.rmtree(replaced, ignore_errors=True)
        else:
            with write_errors(out):
                replaced.replace(out)
