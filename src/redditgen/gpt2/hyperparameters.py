"""The sizes of a GPT-2, as `hparams.json` in a model directory names them, and the shapes of its tensors.

Names and shapes: openai/gpt-2, `src/model.py`."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

from redditgen.errors import InputError, MissingError
from redditgen.files import untrusted

_BYTES = 1 << 16  # of hparams.json


# Far beyond GPT-2 1558M, with 50,257 tokens and 48 layers, and little enough to count with before anything is read.
_SIZE, _LAYERS = 1 << 24, 1000


LIMITS = f"at most {_SIZE}, {_LAYERS} layers"


@dataclass(frozen=True)
class Hyperparameters:
    """What `hparams.json` says: sizes of vocabulary, context (tokens), width, heads and layers."""

    n_vocab: int
    n_ctx: int
    n_embd: int
    n_head: int
    n_layer: int

    @classmethod
    def load(cls, path: Path) -> "Hyperparameters":
        """Read `hparams.json`; raises MissingError or InputError naming what is wrong with it."""
        try:
            content = untrusted.read_json(path, _BYTES)
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
        """Whether a network can have these sizes."""
        sizes = asdict(self).values()
        return 0 < min(sizes) <= max(sizes) <= _SIZE and self.n_layer <= _LAYERS and self.n_embd % self.n_head == 0

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf8")

    def parameters(self) -> int:
        """How many numbers the tensors hold."""
        return sum(map(math.prod, self.tensor_shapes().values()))

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
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
