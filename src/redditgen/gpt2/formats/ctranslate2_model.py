"""A checkpoint as a CTranslate2 model, which is made once and kept beside it.

ctranslate2-<step>-<precision>/   model.bin, config.json, vocabulary.json, and the checkpoint's hash
"""

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redditgen.errors import InputError
from redditgen.files.atomic import atomic_folder, file_sha256
from redditgen.gpt2.hyperparameters import Hyperparameters
from redditgen.gpt2.model_dir import ModelDir
from redditgen.gpt2.tokenizer import Tokenizer
from redditgen.runtime.imports import import_blocked
from redditgen.titles.record import END_TOKEN

if TYPE_CHECKING:
    from redditgen.gpt2.tensor_names import Tensors

FLOAT32, INT8 = "float32", "int8"

_KEPT = 3  # models beside a run, so that a few steps or precisions may take turns
_MADE_OF = "checkpoint.sha256"


def find_or_build_model(model: ModelDir, precision: str) -> Path:
    """The folder of the CTranslate2 model of a directory's checkpoint, built if it is not there yet.

    Those that were used last are kept, any others deleted.
    """
    folder = model.path / f"ctranslate2-{model.step()}-{precision}"
    made_of = file_sha256(model.weights_file())
    if not _is_of(folder, made_of):
        shutil.rmtree(folder, ignore_errors=True)
        _build(folder, model, precision, made_of)
    os.utime(folder)
    for unused in sorted(model.path.glob("ctranslate2-*"), key=lambda path: path.stat().st_mtime)[:-_KEPT]:
        shutil.rmtree(unused, ignore_errors=True)
    return folder


def _is_of(folder: Path, made_of: str) -> bool:
    try:
        return (folder / _MADE_OF).read_text(encoding="utf8") == made_of
    except OSError:
        return False


def _build(folder: Path, model: ModelDir, precision: str, made_of: str) -> None:
    spec = model_specification(model.hyperparameters(), model.tokenizer(), model.tensors(), precision)
    try:
        with atomic_folder(folder) as temporary:
            spec.save(str(temporary))
            (temporary / _MADE_OF).write_text(made_of, encoding="utf8")
    except InputError:
        if not _is_of(folder, made_of):  # else another process was faster
            raise


def model_specification(
    hyperparameters: Hyperparameters, tokenizer: Tokenizer, tensors: "Tensors", precision: str = FLOAT32
) -> Any:
    """A GPT-2 as CTranslate2's model specification, whose `save` writes a folder that its Generator reads."""
    with import_blocked("torch"):  # which CTranslate2 imports for seconds where it can, and needs for bfloat16 alone
        from ctranslate2 import specs
    spec = specs.TransformerDecoderModelSpec.from_config(
        hyperparameters.n_layer, hyperparameters.n_head, pre_norm=True, activation=specs.Activation.GELUTanh
    )
    spec.register_vocabulary(tokenizer.tokens())
    spec.config.bos_token = spec.config.eos_token = spec.config.unk_token = END_TOKEN
    decoder = spec.decoder
    decoder.scale_embeddings = False
    decoder.embeddings.weight = decoder.projection.weight = tensors["model/wte"]
    decoder.position_encodings.encodings = tensors["model/wpe"]
    _layer_norm(decoder.layer_norm, tensors, "model/ln_f")
    for number, layer in enumerate(decoder.layer):
        at = f"model/h{number}"
        _layer_norm(layer.self_attention.layer_norm, tensors, f"{at}/ln_1")
        _linear(layer.self_attention.linear[0], tensors, f"{at}/attn/c_attn")
        _linear(layer.self_attention.linear[1], tensors, f"{at}/attn/c_proj")
        _layer_norm(layer.ffn.layer_norm, tensors, f"{at}/ln_2")
        _linear(layer.ffn.linear_0, tensors, f"{at}/mlp/c_fc")
        _linear(layer.ffn.linear_1, tensors, f"{at}/mlp/c_proj")
    spec.validate()
    spec.optimize(quantization=precision)
    return spec


def _layer_norm(spec: Any, tensors: "Tensors", name: str) -> None:
    spec.gamma, spec.beta = tensors[f"{name}/g"], tensors[f"{name}/b"]


def _linear(spec: Any, tensors: "Tensors", name: str) -> None:
    # [1, in, out] in the checkpoint, [out, in] in CTranslate2.
    spec.weight, spec.bias = tensors[f"{name}/w"][0].T.copy(), tensors[f"{name}/b"]
