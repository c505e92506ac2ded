"""A network to train, made of a checkpoint's tensors: each on its device and in the bits that the plan keeps it in.

Frozen weights may stand in 16 bits, or the layers' matrices in 8 or 4 by bitsandbytes (LLM.int8 and NF4 with quantized
scales), whose layers then take the place of GPT-2's. Biases, norms and positions stay float32, and with them what is
handed from layer to layer.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from redditgen.engines.pytorch.memory_plan import INSTALL_BITSANDBYTES, Plan
from redditgen.errors import MissingError
from redditgen.gpt2.hyperparameters import Hyperparameters
from redditgen.gpt2.tensor_names import new_network, torch_name

if TYPE_CHECKING:
    import torch
    from transformers import GPT2LMHeadModel

    from redditgen.gpt2.tensor_names import Tensors


def load_network(
    hyperparameters: Hyperparameters, tensors: "Tensors", plan: Plan, device: "torch.device"
) -> "GPT2LMHeadModel":
    """The network, all of it frozen. `tensors` is emptied on the way, so that nothing stands twice in memory."""
    import torch

    with torch.device("meta"):
        model = new_network(hyperparameters)
    if plan.weight_bits < 16:
        _quantize(model, tensors, plan, device)
    for name in list(tensors):
        owner, _, attribute = torch_name(name).rpartition(".")
        module: Any = model.get_submodule(owner)
        shape = getattr(module, attribute).shape
        dtype = _dtype(name, plan)
        tensor = torch.from_numpy(tensors.pop(name)).reshape(shape).to(device, dtype, copy=True)
        setattr(module, attribute, torch.nn.Parameter(tensor, requires_grad=False))
    model.lm_head.weight = model.transformer.wte.weight
    return model


def trainable_parameters(
    model: "GPT2LMHeadModel", train: str, layers: int
) -> "Iterator[tuple[str, torch.nn.Parameter]]":
    """The parameters that learn where `train` is what a plan trains, with their names."""
    parts = {
        "full": ("transformer.",),
        "layers": ("transformer.h.",),
        "head": (f"transformer.h.{layers - 1}.", "transformer.ln_f."),
        "lora": ("",),
    }[train]
    for name, parameter in cast("torch.nn.Module", model).named_parameters():
        if name.startswith(parts) and (train != "lora" or ".lora_" in name):
            yield name, parameter


def import_bitsandbytes() -> Any:
    """The library; raises MissingError naming the command that installs it."""
    try:
        with warnings_silenced():
            import bitsandbytes as library
    except ImportError as error:
        raise MissingError(
            f"optimizers in 8 bits and weights in 8 or 4 need bitsandbytes; install it with: {INSTALL_BITSANDBYTES}"
        ) from error
    return library


@contextmanager
def warnings_silenced() -> Iterator[None]:
    """Without what peft and bitsandbytes say of outdated calls in each other and of a CPU kernel to be downloaded."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _quantize(model: "GPT2LMHeadModel", tensors: "Tensors", plan: Plan, device: "torch.device") -> None:
    """Put bitsandbytes' layers in place of those with matrices, and take their tensors out."""
    import torch

    for name in [name for name, array in tensors.items() if array.ndim == 3]:
        path = torch_name(name).removesuffix(".weight")
        matrix = torch.from_numpy(tensors.pop(name)[0].T.copy())  # [in, out] in GPT-2's, [out, in] in these
        bias = torch.from_numpy(tensors.pop(f"{name[:-1]}b"))
        parent, _, attribute = path.rpartition(".")
        setattr(model.get_submodule(parent), attribute, _quantized(matrix, bias, plan, device))
    quantized: Any = model
    quantized.is_loaded_in_8bit, quantized.is_loaded_in_4bit = plan.weight_bits == 8, plan.weight_bits == 4  # for peft


def _quantized(matrix: "torch.Tensor", bias: "torch.Tensor", plan: Plan, device: "torch.device") -> Any:
    import torch

    library = import_bitsandbytes()
    wide, narrow = matrix.shape
    if plan.weight_bits == 4:
        dtype = getattr(torch, plan.precision)
        layer = library.nn.Linear4bit(narrow, wide, compute_dtype=dtype, quant_type="nf4", device="meta")
        layer.weight = library.nn.Params4bit(matrix, requires_grad=False, quant_type="nf4").to(device)
    else:
        layer = library.nn.Linear8bitLt(narrow, wide, has_fp16_weights=False, device="meta")
        layer.weight = library.nn.Int8Params(matrix, requires_grad=False, has_fp16_weights=False).to(device)
    layer.bias = torch.nn.Parameter(bias.to(device, copy=True), requires_grad=False)
    return layer


def _dtype(name: str, plan: Plan) -> "torch.dtype":
    import torch

    is_large = name == "model/wte" or name.endswith("/w")
    return getattr(torch, plan.precision) if is_large and plan.weight_bits < 32 else torch.float32
