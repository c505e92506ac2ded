"""One network in training: its optimizer, learning rate and precision."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from redditgen.errors import InputError
from redditgen.gpt2.batches import IGNORED, batches, padded
from redditgen.gpt2.examples import Examples
from redditgen.gpt2.loss import summed_loss, token_losses
from redditgen.gpt2.weights import Hparams, network, put, take

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from transformers import GPT2LMHeadModel

    from redditgen.gpt2.weights import Tensors

WARM_UP = 20  # steps in which the learning rate rises
DECAY = 0.2  # share of the steps, at the end, in which it falls to zero
BETAS, WEIGHT_DECAY = (0.9, 0.99), 0.01  # of AdamW
_MOMENTS = ("exp_avg", "exp_avg_sq")  # AdamW's names of them


def learning_rate(step: int, end: int, full: float) -> float:
    """The rate of a step: rising at first, then `full`, then falling, to be zero just behind `end`."""
    left = (end - step + 1) / max(1.0, DECAY * end)
    return full * min(1.0, step / WARM_UP, left)


def default_learning_rate(hparams: Hparams) -> float:
    """gpt-2-simple's 1e-4 at 124M's width, and more for narrower models: 3e-4 for mini, the best of four by trial."""
    return 1e-4 * 768 / hparams.n_embd


@dataclass(frozen=True)
class Evaluation:
    """Of held-out records: nats a token, and bits a character of the titles, their end included."""

    loss: float
    bits_per_char: float


class Training:
    """A network in training. Every method runs on the device it was made for."""

    def __init__(
        self,
        hparams: Hparams,
        tensors: "Tensors",
        *,
        rate: float,
        end: int,
        precision: str,
        optimizer: str = "adam",
        only_layers: bool = False,
        save_memory: bool = False,
    ) -> None:
        """Put `tensors` into a network; `end` is the step at which the learning rate has fallen.

        `only_layers` leaves the embeddings and the last norm as they are. `save_memory` keeps only each layer's input
        and computes the rest again on the way back. The optimizer is AdamW, or `sgd`: plain gradient descent at an even
        rate and without clipping, as gpt-2-simple's.
        """
        import torch

        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.hparams, self.rate, self.end, self.is_sgd = hparams, rate, end, optimizer == "sgd"
        self.model = network(hparams)
        put(tensors, self.model)
        cast("torch.nn.Module", self.model).to(self.device)
        self.model.generation_config.pad_token_id = hparams.n_vocab - 1
        self.learning = {
            name: parameter
            for name, parameter in self.model.named_parameters()
            if not only_layers or name.startswith("transformer.h.")
        }
        self.model.requires_grad_(False)
        for parameter in self.learning.values():
            parameter.requires_grad_(True)
        if save_memory:
            # It has the second name from transformers 5.23 on, where the first one warns.
            model: Any = self.model
            enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            enable({"use_reentrant": False})
        parameters = self.learning.values()
        self.optimizer: torch.optim.Optimizer = (
            torch.optim.SGD(parameters, lr=rate)
            if self.is_sgd
            else torch.optim.AdamW(parameters, lr=rate, betas=BETAS, weight_decay=WEIGHT_DECAY, fused=True)
        )
        self.bfloat16 = precision == "bfloat16" or (precision == "auto" and _computes_in_bfloat16(self.device))

    def learning_rate(self, step: int) -> float:
        return self.rate if self.is_sgd else learning_rate(step, self.end, self.rate)

    def step(self, number: int, *batches: "tuple[torch.Tensor, torch.Tensor]") -> float:
        """Learn from batches of inputs and targets together, as step `number`; gives their loss in nats a token."""
        import torch

        self.optimizer.param_groups[0]["lr"] = self.learning_rate(number)
        self.optimizer.zero_grad()
        tokens = sum(int((targets != IGNORED).sum()) for _, targets in batches)
        total = 0.0
        for inputs, targets in batches:
            with self._autocast():
                loss = summed_loss(self.model, inputs.to(self.device), targets.to(self.device)) / tokens
            loss.backward()
            total += loss.item()
        if not self.is_sgd:
            torch.nn.utils.clip_grad_norm_(self.learning.values(), 1.0)
        self.optimizer.step()
        return total

    def evaluate(self, examples: Examples, size: int) -> Evaluation:
        with self._autocast():
            return evaluate(self.model, examples, size)

    def sample(self, prompt: list[int], number: int, length: int, *, seed: int) -> list[list[int]]:
        """`number` continuations of a prompt, of at most `length` tokens each, drawn as gpt-2-simple's samples are."""
        import torch

        inputs = torch.tensor([prompt] * number, device=self.device)
        devices = [self.device] if self.device.type == "cuda" else []
        self.model.eval()  # a network in training that saves memory has no cache, and generates nonsense with one
        with torch.random.fork_rng(devices), torch.no_grad(), self._autocast():
            torch.manual_seed(seed)
            rows = cast(Any, self.model).generate(
                inputs,
                attention_mask=torch.ones_like(inputs),
                do_sample=True,
                temperature=0.7,
                top_k=40,
                max_new_tokens=min(length, self.hparams.n_ctx - len(prompt)),
                use_cache=True,
            )
        self.model.train()
        return [row[len(prompt) :].tolist() for row in rows]

    def tensors(self) -> "Tensors":
        return take(self.model, self.hparams)

    def optimizer_state(self) -> "Tensors":
        """AdamW's two moments of every parameter that learns, under `<parameter>.<moment>`; nothing for sgd."""
        return {
            f"{name}.{moment}": self.optimizer.state[parameter][moment].cpu().numpy()
            for name, parameter in self.learning.items()
            for moment in _MOMENTS
            if not self.is_sgd
        }

    def restore_optimizer(self, state: "Tensors", step: int) -> None:
        """Put saved moments back; parameters that have none begin anew. Raises InputError for another network's."""
        import torch

        for name, parameter in self.learning.items():
            saved = {moment: state[key] for moment in _MOMENTS if (key := f"{name}.{moment}") in state}
            if any(array.shape != parameter.shape for array in saved.values()):
                raise InputError(f"optimizer state: {name} is of another shape; delete the file to go on without it")
            if len(saved) == len(_MOMENTS) and not self.is_sgd:
                moments = {moment: torch.from_numpy(array).to(self.device) for moment, array in saved.items()}
                self.optimizer.state[parameter] = {"step": torch.tensor(float(step), device=self.device), **moments}

    def _autocast(self) -> "torch.autocast":
        import torch

        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16)


def evaluate(model: "GPT2LMHeadModel", examples: Examples, size: int) -> Evaluation:
    """Measure a network on held-out records, `size` at a time, in the precision that the caller has set."""
    nats = title_nats = 0.0
    tokens = 0
    for indices in batches(examples.sequences.lengths, size, np.random.default_rng(0)):
        inputs, targets = padded(examples.sequences, indices)
        losses = token_losses(model, inputs.to(model.device), targets.to(model.device)).cpu()
        in_title = _in_title(targets, examples.title_starts[indices], examples.title_ends[indices])[targets != IGNORED]
        nats += losses.sum().item()
        title_nats += losses[in_title].sum().item()
        tokens += len(losses)
    return Evaluation(nats / tokens, title_nats / math.log(2) / max(1, int(examples.title_chars.sum())))


def _in_title(targets: "torch.Tensor", starts: "NDArray[np.int32]", ends: "NDArray[np.int32]") -> "torch.Tensor":
    """Which targets belong to the title; target j is token j + 1 of its row."""
    import torch

    places = torch.arange(1, targets.shape[1] + 1)[None, :]
    return (places >= torch.from_numpy(starts)[:, None]) & (places < torch.from_numpy(ends)[:, None])


def _computes_in_bfloat16(device: "torch.device") -> bool:
    """Whether the hardware multiplies bfloat16 itself, three times as fast as float32 on the CPUs that do."""
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
