"""The sizes of a GPT-2, as `hparams.json` in a model directory states them, and the shapes of its tensors.

Names and shapes are those of openai/gpt-2, `src/model.py`.
"""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

from redditgen.errors import InputError, MissingError
from redditgen.files import untrusted

_MAX_FILE_BYTES = 1 << 16  # of hparams.json


# Limits of every size, and of the layers: far above GPT-2 1558M with its 50,257 tokens and 48 layers, and low enough
# that the shapes of all tensors can be listed before anything else is read.
_MAX_SIZE, _MAX_LAYERS = 1 << 24, 1000


LIMITS = f"at most {_MAX_SIZE}, {_MAX_LAYERS} layers"


@dataclass(frozen=True)
class Hyperparameters:
    """The content of `hparams.json`.

    `n_vocab` counts the tokens of the vocabulary, `n_ctx` those of the context; `n_embd` is the width of the hidden
    states, `n_head` the number of attention heads, `n_layer` that of layers.
    """

    n_vocab: int
    n_ctx: int
    n_embd: int
    n_head: int
    n_layer: int

    @classmethod
    def load(cls, path: Path) -> "Hyperparameters":
        """Read `hparams.json`.

        Raises MissingError where the file does not exist, and InputError where a size is missing or out of range.
        """
        try:
            content = untrusted.read_json(path, _MAX_FILE_BYTES)
            hyperparameters = cls(**{name: int(content[name]) for name in cls.__dataclass_fields__})
        except FileNotFoundError as error:
            raise MissingError(f"{path}: not there, and a model directory needs it") from error
        except (OSError, ValueError, TypeError, KeyError, OverflowError) as error:
            raise InputError(
                f"{path}: must be JSON with whole numbers for {', '.join(cls.__dataclass_fields__)}"
            ) from error
        if not hyperparameters.is_valid:
            raise InputError(f"{path}: sizes must be positive, {LIMITS}, and n_embd a multiple of n_head")
        return hyperparameters

    @property
    def is_valid(self) -> bool:
        """Whether a network can have these sizes and they are within LIMITS."""
        sizes = asdict(self).values()
        return (
            0 < min(sizes) <= max(sizes) <= _MAX_SIZE and self.n_layer <= _MAX_LAYERS and self.n_embd % self.n_head == 0
        )

    def save(self, path: Path) -> None:
        """Write `hparams.json`; raises OSError where it can't be written."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf8")

    def parameters(self) -> int:
        """Return the number of parameters: the values in all tensors together."""
        return sum(map(math.prod, self.tensor_shapes().values()))

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every tensor in a checkpoint, by the tensor's name."""
        width = self.n_embd
        shapes: dict[str, tuple[int, ...]] = {"model/wte": (self.n_vocab, width), "model/wpe": (self.n_ctx, width)}
        for layer in range(self.n_layer):
            prefix = f"model/h{layer}"
            shapes |= _weight_and_bias(f"{prefix}/ln_1", "g", (width,), width)
            shapes |= _weight_and_bias(f"{prefix}/attn/c_attn", "w", (1, width, 3 * width), 3 * width)
            shapes |= _weight_and_bias(f"{prefix}/attn/c_proj", "w", (1, width, width), width)
            shapes |= _weight_and_bias(f"{prefix}/ln_2", "g", (width,), width)
            shapes |= _weight_and_bias(f"{prefix}/mlp/c_fc", "w", (1, width, 4 * width), 4 * width)
            shapes |= _weight_and_bias(f"{prefix}/mlp/c_proj", "w", (1, 4 * width, width), width)
        return shapes | _weight_and_bias("model/ln_f", "g", (width,), width)


def _weight_and_bias(name: str, weight: str, shape: tuple[int, ...], bias: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of an operation's two tensors: `name`/`weight`, and its bias of `bias` values."""
    return {f"{name}/{weight}": shape, f"{name}/b": (bias,)}
