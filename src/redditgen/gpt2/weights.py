"""A GPT-2's shape and its tensors under the names that OpenAI's checkpoints give them.

Names and shapes: openai/gpt-2, `src/model.py`. Convolutions of width 1 stand as [1, in, out] there and as [in, out]
in transformers' GPT-2.
"""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from redditgen import untrusted
from redditgen.errors import InputError, MissingError

if TYPE_CHECKING:
    import numpy as np
    from transformers import GPT2LMHeadModel

    Tensors = dict[str, np.ndarray]

_BYTES = 1 << 16  # of hparams.json
# Far beyond GPT-2 1558M, with 50,257 tokens and 48 layers, and little enough to count with before anything is read.
_SIZE, _LAYERS = 1 << 24, 1000
MOST = f"at most {_SIZE}, {_LAYERS} layers"


@dataclass(frozen=True)
class Hparams:
    """What `hparams.json` says: sizes of vocabulary, context (tokens), width, heads and layers."""

    n_vocab: int
    n_ctx: int
    n_embd: int
    n_head: int
    n_layer: int

    @classmethod
    def load(cls, path: Path) -> "Hparams":
        """Read `hparams.json`; raises MissingError or InputError naming what is wrong with it."""
        try:
            content = untrusted.json_value(path, _BYTES)
            hparams = cls(**{name: int(content[name]) for name in cls.__dataclass_fields__})
        except FileNotFoundError as error:
            raise MissingError(f"{path}: not there, and a model directory needs it") from error
        except (OSError, ValueError, TypeError, KeyError, OverflowError) as error:
            raise InputError(
                f"{path}: must be JSON with whole numbers for {', '.join(cls.__dataclass_fields__)}"
            ) from error
        if not hparams.are_possible:
            raise InputError(f"{path}: sizes must be positive, {MOST}, and n_embd a multiple of n_head")
        return hparams

    @property
    def are_possible(self) -> bool:
        """Whether a network can have these sizes."""
        sizes = asdict(self).values()
        return 0 < min(sizes) <= max(sizes) <= _SIZE and self.n_layer <= _LAYERS and self.n_embd % self.n_head == 0

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf8")

    def parameters(self) -> int:
        """How many numbers the tensors hold."""
        return sum(map(math.prod, self.shapes().values()))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor of a checkpoint with its shape."""
        width = self.n_embd
        shapes: dict[str, tuple[int, ...]] = {"model/wte": (self.n_vocab, width), "model/wpe": (self.n_ctx, width)}
        for layer in range(self.n_layer):
            at = f"model/h{layer}"
            shapes |= _pair(f"{at}/ln_1", "g", (width,), width)
            shapes |= _pair(f"{at}/attn/c_attn", "w", (1, width, 3 * width), 3 * width)
            shapes |= _pair(f"{at}/attn/c_proj", "w", (1, width, width), width)
            shapes |= _pair(f"{at}/ln_2", "g", (width,), width)
            shapes |= _pair(f"{at}/mlp/c_fc", "w", (1, width, 4 * width), 4 * width)
            shapes |= _pair(f"{at}/mlp/c_proj", "w", (1, 4 * width, width), width)
        return shapes | _pair("model/ln_f", "g", (width,), width)


def _pair(name: str, letter: str, shape: tuple[int, ...], bias: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}/{letter}": shape, f"{name}/b": (bias,)}


def network(hparams: Hparams) -> "GPT2LMHeadModel":
    """An uninitialised GPT-2 of this shape, without dropout, as OpenAI's and gpt-2-simple's code has none."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=hparams.n_vocab,
        n_positions=hparams.n_ctx,
        n_embd=hparams.n_embd,
        n_head=hparams.n_head,
        n_layer=hparams.n_layer,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        activation_function="gelu_pytorch_tanh",  # OpenAI's, in one operation that keeps a fourth for the way back
        bos_token_id=hparams.n_vocab - 1,
        eos_token_id=hparams.n_vocab - 1,
        use_cache=False,
    )
    return GPT2LMHeadModel(config)


def put(tensors: "Tensors", model: "GPT2LMHeadModel") -> None:
    """Copy checkpoint tensors into a network of the same shape."""
    import torch

    state = model.state_dict()
    with torch.no_grad():
        for name, array in tensors.items():
            target = state[torch_name(name)]
            target.copy_(torch.from_numpy(array).reshape(target.shape))


def take(model: "GPT2LMHeadModel", hparams: Hparams) -> "Tensors":
    """A network's weights as float32 checkpoint tensors."""
    state = model.state_dict()
    return {
        name: state[torch_name(name)].detach().float().cpu().reshape(shape).numpy().copy()
        for name, shape in hparams.shapes().items()
    }


def torch_name(name: str) -> str:
    """`model/h0/attn/c_attn/w` to `transformer.h.0.attn.c_attn.weight`."""
    parts = name.removeprefix("model/").split("/")
    if parts[0].startswith("h"):
        parts[0:1] = ["h", parts[0][1:]]
    if parts[-1] in ("w", "g", "b"):
        parts[-1] = "bias" if parts[-1] == "b" else "weight"
    else:
        parts.append("weight")
    return ".".join(["transformer", *parts])
