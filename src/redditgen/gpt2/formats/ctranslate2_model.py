"""Converts a checkpoint to a CTranslate2 model, which is built once and kept in the checkpoint's model directory.

    ctranslate2-<step>-<precision>/   model.bin, config.json, vocabulary.json, checkpoint.sha256

`checkpoint.sha256` holds the SHA-256 of the checkpoint's index; a model with any other hash is built anew. The three
models used last are kept.
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

_MAX_MODELS = 3  # per model directory, so that a few steps or precisions can be used in turn
_HASH_FILE = "checkpoint.sha256"


def find_or_build_model(model: ModelDir, precision: str) -> Path:
    """Return the folder of the CTranslate2 model of a directory's checkpoint; build it where it is missing or outdated.

    The models that were used last are kept, and others are deleted. Raises InputError where the checkpoint can't be
    read or the model can't be written.
    """
    folder = model.path / f"ctranslate2-{model.step()}-{precision}"
    checkpoint_hash = file_sha256(model.weights_file())
    if not _is_up_to_date(folder, checkpoint_hash):
        shutil.rmtree(folder, ignore_errors=True)
        _build(folder, model, precision, checkpoint_hash)
    os.utime(folder)  # the time of the last use, which decides which models are kept
    for unused in sorted(model.path.glob("ctranslate2-*"), key=lambda path: path.stat().st_mtime)[:-_MAX_MODELS]:
        shutil.rmtree(unused, ignore_errors=True)
    return folder


def _is_up_to_date(folder: Path, checkpoint_hash: str) -> bool:
    """Whether a folder holds a complete model of the checkpoint with this hash."""
    try:
        return (folder / _HASH_FILE).read_text(encoding="utf8") == checkpoint_hash
    except OSError:
        return False


def _build(folder: Path, model: ModelDir, precision: str, checkpoint_hash: str) -> None:
    spec = model_specification(model.hyperparameters(), model.tokenizer(), model.tensors(), precision)
    try:
        with atomic_folder(folder) as temporary:
            spec.save(str(temporary))
            (temporary / _HASH_FILE).write_text(checkpoint_hash, encoding="utf8")
    except InputError:
        if not _is_up_to_date(folder, checkpoint_hash):  # else another process has built the model in the meantime
            raise


def model_specification(
    hyperparameters: Hyperparameters, tokenizer: Tokenizer, tensors: "Tensors", precision: str = FLOAT32
) -> Any:
    """Return a GPT-2 as a CTranslate2 model specification, whose `save` writes a folder that CTranslate2 can load.

    `tensors` are a checkpoint's; `precision` is FLOAT32 or INT8.
    """
    # CTranslate2 imports torch where it is installed, which takes seconds, and needs it for bfloat16 only.
    with import_blocked("torch"):
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
    _set_layer_norm(decoder.layer_norm, tensors, "model/ln_f")
    for number, layer in enumerate(decoder.layer):
        prefix = f"model/h{number}"
        _set_layer_norm(layer.self_attention.layer_norm, tensors, f"{prefix}/ln_1")
        _set_linear(layer.self_attention.linear[0], tensors, f"{prefix}/attn/c_attn")
        _set_linear(layer.self_attention.linear[1], tensors, f"{prefix}/attn/c_proj")
        _set_layer_norm(layer.ffn.layer_norm, tensors, f"{prefix}/ln_2")
        _set_linear(layer.ffn.linear_0, tensors, f"{prefix}/mlp/c_fc")
        _set_linear(layer.ffn.linear_1, tensors, f"{prefix}/mlp/c_proj")
    spec.validate()
    spec.optimize(quantization=precision)
    return spec


def _set_layer_norm(spec: Any, tensors: "Tensors", name: str) -> None:
    spec.gamma, spec.beta = tensors[f"{name}/g"], tensors[f"{name}/b"]


def _set_linear(spec: Any, tensors: "Tensors", name: str) -> None:
    # The shape is [1, in, out] in a checkpoint and [out, in] in CTranslate2.
    spec.weight, spec.bias = tensors[f"{name}/w"][0].T.copy(), tensors[f"{name}/b"]
