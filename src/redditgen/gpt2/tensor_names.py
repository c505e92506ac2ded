"""Converts between the tensors of an OpenAI checkpoint and transformers' GPT-2.

A checkpoint's names and shapes are those of openai/gpt-2, `src/model.py`. The weight of a convolution of width 1 has
the shape [1, in, out] in a checkpoint and [in, out] in transformers' GPT-2.
"""

from typing import TYPE_CHECKING

from redditgen.gpt2.hyperparameters import Hyperparameters

if TYPE_CHECKING:
    import numpy as np
    from transformers import GPT2LMHeadModel

    Tensors = dict[str, np.ndarray]


def new_network(hyperparameters: Hyperparameters) -> "GPT2LMHeadModel":
    """Return an untrained GPT-2 of these sizes, without dropout, which OpenAI's and gpt-2-simple's code lacks."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=hyperparameters.n_vocab,
        n_positions=hyperparameters.n_ctx,
        n_embd=hyperparameters.n_embd,
        n_head=hyperparameters.n_head,
        n_layer=hyperparameters.n_layer,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        # OpenAI's GELU as one operation, which stores a quarter as much for the backward pass.
        activation_function="gelu_pytorch_tanh",
        bos_token_id=hyperparameters.n_vocab - 1,
        eos_token_id=hyperparameters.n_vocab - 1,
        use_cache=False,
    )
    return GPT2LMHeadModel(config)


def copy_to_network(tensors: "Tensors", model: "GPT2LMHeadModel") -> None:
    """Copy a checkpoint's tensors into a network of the same sizes."""
    import torch

    state = model.state_dict()
    with torch.no_grad():
        for name, array in tensors.items():
            target = state[torch_name(name)]
            target.copy_(torch.from_numpy(array).reshape(target.shape))


def tensors_of_network(model: "GPT2LMHeadModel", hyperparameters: Hyperparameters) -> "Tensors":
    """Return a network's weights as float32 tensors on the CPU, with the names and shapes of a checkpoint."""
    state = model.state_dict()
    return {
        name: state[torch_name(name)].detach().float().cpu().reshape(shape).numpy().copy()
        for name, shape in hyperparameters.tensor_shapes().items()
    }


def torch_name(name: str) -> str:
    """Return transformers' name of a checkpoint's tensor.

    `model/h0/attn/c_attn/w` becomes `transformer.h.0.attn.c_attn.weight`.
    """
    parts = name.removeprefix("model/").split("/")
    if parts[0].startswith("h"):
        parts[0:1] = ["h", parts[0][1:]]
    if parts[-1] in ("w", "g", "b"):
        parts[-1] = "bias" if parts[-1] == "b" else "weight"
    else:
        parts.append("weight")
    return ".".join(["transformer", *parts])
