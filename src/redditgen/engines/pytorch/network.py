"""A PyTorch network loaded from a checkpoint's tensors, each on its device and in the precision that the plan asks for.

Frozen weights may be kept in 16 bits. Matrices of the layers may be kept in 8 or 4 bits instead, in layers of
bitsandbytes that replace GPT-2's own: LLM.int8() (Dettmers et al. 2022, arXiv:2208.07339), or NF4 with quantized scales
(Dettmers et al. 2023, arXiv:2305.14314). Biases, norms and position embeddings stay in float32, and so do the hidden
states between layers.

Loading copies one tensor at a time and frees its source, so memory holds one set of weights and one more tensor.
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
    """Return a network on a device, with all parameters frozen.

    `tensors` maps OpenAI's names to arrays. It is emptied on the way, so that no weight is in memory twice. Raises
    MissingError where the plan needs bitsandbytes and it is not installed.
    """
    import torch

    with torch.device("meta"):
        model = new_network(hyperparameters)
    if plan.weight_bits < 16:
        _quantize_layers(model, tensors, plan, device)
    for name in list(tensors):
        module_path, _, attribute = torch_name(name).rpartition(".")
        module: Any = model.get_submodule(module_path)
        shape = getattr(module, attribute).shape
        dtype = _storage_dtype(name, plan)
        tensor = torch.from_numpy(tensors.pop(name)).reshape(shape).to(device, dtype, copy=True)
        setattr(module, attribute, torch.nn.Parameter(tensor, requires_grad=False))
    model.lm_head.weight = model.transformer.wte.weight
    return model


def trainable_parameters(
    model: "GPT2LMHeadModel", train: str, layers: int
) -> "Iterator[tuple[str, torch.nn.Parameter]]":
    """Yield the names and parameters that a plan with this `train` trains (see `Plan.train`).

    `layers` is the number of layers of the network.
    """
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
    """Return the bitsandbytes module. Raises MissingError, which names the command that installs it."""
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
    """Inside the block, suppress the warnings of peft and bitsandbytes: on deprecated calls and missing CPU kernels."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _quantize_layers(model: "GPT2LMHeadModel", tensors: "Tensors", plan: Plan, device: "torch.device") -> None:
    """Replace the layers that have matrices with bitsandbytes' layers, and remove their tensors from `tensors`."""
    import torch

    for name in [name for name, array in tensors.items() if array.ndim == 3]:
        layer_path = torch_name(name).removesuffix(".weight")
        matrix = torch.from_numpy(tensors.pop(name)[0].T.copy())  # [in, out] in a checkpoint, [out, in] in bitsandbytes
        bias = torch.from_numpy(tensors.pop(f"{name[:-1]}b"))
        parent_path, _, attribute = layer_path.rpartition(".")
        setattr(model.get_submodule(parent_path), attribute, _quantized_layer(matrix, bias, plan, device))
    untyped: Any = model  # peft reads attributes that its type lacks
    untyped.is_loaded_in_8bit, untyped.is_loaded_in_4bit = plan.weight_bits == 8, plan.weight_bits == 4


def _quantized_layer(matrix: "torch.Tensor", bias: "torch.Tensor", plan: Plan, device: "torch.device") -> Any:
    """Return bitsandbytes' layer for a matrix, [out, in], and its bias, [out], both in float32."""
    import torch

    library = import_bitsandbytes()
    out_features, in_features = matrix.shape
    if plan.weight_bits == 4:
        dtype = getattr(torch, plan.precision)
        layer = library.nn.Linear4bit(in_features, out_features, compute_dtype=dtype, quant_type="nf4", device="meta")
        layer.weight = library.nn.Params4bit(matrix, requires_grad=False, quant_type="nf4").to(device)
    else:
        layer = library.nn.Linear8bitLt(in_features, out_features, has_fp16_weights=False, device="meta")
        layer.weight = library.nn.Int8Params(matrix, requires_grad=False, has_fp16_weights=False).to(device)
    layer.bias = torch.nn.Parameter(bias.to(device, copy=True), requires_grad=False)
    return layer


def _storage_dtype(name: str, plan: Plan) -> "torch.dtype":
    """Return the type in which a plan keeps the tensor of this name, unless it is quantized."""
    import torch

    is_large = name == "model/wte" or name.endswith("/w")
    return getattr(torch, plan.precision) if is_large and plan.weight_bits < 32 else torch.float32
