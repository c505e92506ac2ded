"""One network in training: its optimizer, learning rate and precision."""

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from redditgen.engines.data.batches import IGNORED_TARGET, batches_by_length, pad_batch, title_mask
from redditgen.engines.data.examples import Examples
from redditgen.engines.pytorch.device import best_device, is_out_of_memory, limit_kernel_caches
from redditgen.engines.pytorch.lora import Adapters
from redditgen.engines.pytorch.loss import summed_loss, token_losses
from redditgen.engines.pytorch.memory_plan import Plan
from redditgen.engines.pytorch.network import load_network, trainable_parameters
from redditgen.engines.pytorch.optimizers import LowMemoryOptimizer, Optimizer
from redditgen.engines.pytorch.parallel import SINGLE_PROCESS, Ranks
from redditgen.errors import InputError
from redditgen.gpt2.formats.adapters import NO_BASE, AdapterBase
from redditgen.gpt2.hyperparameters import Hyperparameters
from redditgen.gpt2.tensor_names import tensors_of_network
from redditgen.runtime.memory import return_freed_memory
from redditgen.runtime.progress import track

if TYPE_CHECKING:
    import torch
    from transformers import GPT2LMHeadModel

    from redditgen.gpt2.tensor_names import Tensors

    Batch = tuple[torch.Tensor, torch.Tensor]  # inputs and targets, both [rows, tokens]

WARM_UP = 20  # steps in which the learning rate rises
DECAY = 0.2  # share of the steps, at the end, in which it falls to zero

DEFAULT_PLAN = Plan()

_log = logging.getLogger(__name__)


def learning_rate(step: int, end: int, full: float) -> float:
    """The rate of a step: rising at first, then `full`, then falling, to be zero just behind `end`."""
    left = (end - step + 1) / max(1.0, DECAY * end)
    return full * min(1.0, step / WARM_UP, left)


@dataclass(frozen=True)
class HeldOutLoss:
    """Of held-out records: nats a token, and bits a character of the titles, their end included."""

    loss: float
    bits_per_char: float


class Training:
    """A network in training. Every method runs on the device it was made for."""

    def __init__(
        self,
        hyperparameters: Hyperparameters,
        weights: "Callable[[], Tensors]",
        *,
        rate: float,
        end: int,
        plan: Plan,
        optimizer: str = "adam",
        base: AdapterBase = NO_BASE,
        adapters: Path | None = None,
        seed: int = 0,
        ranks: Ranks = SINGLE_PROCESS,
    ) -> None:
        """Put what `weights` reads into a network; `end` is the step at which the learning rate has fallen.

        With adapters `weights` is read again whenever they are merged, so that it need not stay in memory; `base` says
        where it is, and `adapters` is the folder of those to go on with. The optimizer is AdamW, or `sgd`: plain
        gradient descent at an even rate and without clipping, as gpt-2-simple's. Of several `ranks` each makes its own
        training, and they take every step together.
        """
        self.device = best_device()
        self.hyperparameters, self.rate, self.end, self.plan, self.ranks = hyperparameters, rate, end, plan, ranks
        if self.device.type == "cpu":
            limit_kernel_caches()
            if plan.saves_memory:
                return_freed_memory()
        self._weights, self.is_sgd = weights, optimizer == "sgd"
        self.model = load_network(hyperparameters, weights(), plan, self.device)
        self.model.generation_config.pad_token_id = hyperparameters.n_vocab - 1
        self.adapters: Adapters | None = None
        if plan.train == "lora":
            self.adapters = Adapters(self.model, plan.lora_rank, base, seed=seed)
            if adapters:
                self.adapters.load(adapters)
        self.learning = dict(trainable_parameters(self.model, plan.train, hyperparameters.n_layer))
        for parameter in self.learning.values():
            parameter.requires_grad_(True)
        if plan.checkpointing:
            self._compute_twice()
        self.optimizer = self._optimizer(optimizer)
        self._shared = ranks.losses(self.model) if ranks.count > 1 else None
        self.model.train()

    def _optimizer(self, kind: str) -> Optimizer:
        import torch

        if self.plan.optimizer_bits == 32:
            return Optimizer(self.learning, kind, self.plan.precision)
        words, twins = "transformer.wte.weight", {}
        if words in self.learning:
            # As the last layer the embeddings have a gradient of their own, long before that of the first one.
            twins[words] = self.model.lm_head.weight = torch.nn.Parameter(self.learning[words].detach())
        return LowMemoryOptimizer(self.learning, twins, self.plan.precision)

    def learning_rate(self, step: int) -> float:
        return self.rate if self.is_sgd else learning_rate(step, self.end, self.rate)

    def step(self, number: int, *batches: "Batch") -> float:
        """Learn from batches of inputs and targets together, as step `number`; gives their loss in nats a token.

        Where memory runs out it goes on by a lighter plan; raises InputError where there is none.
        """
        while (loss := self._gradients_or_none(batches)) is None:
            self._step_down(*max((inputs.shape for inputs, _ in batches), key=math.prod))
        self.optimizer.step(self.learning_rate(number))
        self.optimizer.clear()
        return loss

    def gradients(self, *batches: "Batch") -> float:
        """Make the gradients of the mean loss over all that counts in some batches; gives that loss."""
        tokens = max(1, sum(int((targets != IGNORED_TARGET).sum()) for _, targets in batches))
        parts = [part for batch in batches for part in _parts(self.ranks.own(batch), self.plan)]
        total = 0.0
        for number, (inputs, targets) in enumerate(parts, start=1):
            with self._adding_up(is_last=number == len(parts)):
                with self._autocast():
                    loss = (self._shared or self._summed_loss)(inputs.to(self.device), targets.to(self.device)) / tokens
                # The ranks' gradients become their mean, where the sum is meant.
                (loss * self.ranks.count * self.optimizer.scale.factor).backward()
            total += loss.item()
        return self.ranks.sum_over_ranks(total, self.device)

    def _summed_loss(self, inputs: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor":
        return summed_loss(self.model, inputs, targets)

    def _adding_up(self, *, is_last: bool) -> AbstractContextManager[Any]:
        """Ranks share their gradients with the last part of a step alone; until then each adds up its own."""
        return self._shared.no_sync() if self._shared and not is_last else nullcontext()

    def loss(self, *batches: "Batch") -> float:
        """The same mean loss as the network is now, without learning."""
        tokens = max(1, sum(int((targets != IGNORED_TARGET).sum()) for _, targets in batches))
        with self._autocast():
            total = sum(float(_losses(self.model, batch, self.plan).sum()) for batch in batches)
        return total / tokens

    def _gradients_or_none(self, batches: "tuple[Batch, ...]") -> float | None:
        """The loss, or None where memory ran out; by then nothing of what was computed is left in memory."""
        try:
            return self.gradients(*batches)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if self.ranks.count > 1:  # the others wait for this one in the middle of a step
                raise InputError(
                    "memory ran out in one of the workers; pass a smaller --batch-size or --memory"
                ) from error
            return None

    def _step_down(self, rows: int, length: int) -> None:
        import torch

        lighter = self.plan.lighter(rows, length)
        if lighter is None:
            raise InputError(
                "memory ran out with one record at a time and the layers computed twice; pass --train lora, a smaller "
                "--memory or a smaller --model"
            )
        _log.warning("memory ran out with %s; going on with %s", self.plan, lighter)
        if lighter.checkpointing and not self.plan.checkpointing:
            self._compute_twice()
        self.plan = lighter
        self.optimizer.clear()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _compute_twice(self) -> None:
        """Keep only each layer's input, and compute the rest again on the way back."""
        # It has the second name from transformers 5.23 on, where the first one warns.
        model: Any = self.model
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})

    def evaluate(self, examples: Examples, size: int) -> HeldOutLoss:
        with self._autocast():
            return measure_held_out_loss(self.model, examples, size, self.plan)

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
                max_new_tokens=min(length, self.hyperparameters.n_ctx - len(prompt)),
                use_cache=True,
            )
        self.model.train()
        return [row[len(prompt) :].tolist() for row in rows]

    def tensors(self) -> "Tensors":
        """The weights as they are now, adapters merged into them."""
        if not self.adapters:
            return tensors_of_network(self.model, self.hyperparameters)
        tensors = self._weights()
        self.adapters.merge_into(tensors)
        return tensors

    def optimizer_state(self) -> "Tensors":
        return self.optimizer.state()

    def restore_optimizer(self, state: "Tensors", step: int) -> None:
        self.optimizer.restore(state, step)

    def _autocast(self) -> "torch.autocast":
        import torch

        # Without its cache, which would hold every weight a second time: each is used once a pass.
        dtype = torch.float16 if self.plan.precision == "float16" else torch.bfloat16
        is_needed = self.plan.precision != "float32"
        return torch.autocast(self.device.type, dtype, enabled=is_needed, cache_enabled=False)


def measure_held_out_loss(
    model: "GPT2LMHeadModel", examples: Examples, size: int, plan: Plan = DEFAULT_PLAN
) -> HeldOutLoss:
    """Measure a network on held-out records, `size` in a batch, in the precision that the caller has set."""
    nats = title_nats = 0.0
    tokens = 0
    parts = batches_by_length(examples.sequences.lengths, size, np.random.default_rng(0))
    for indices in track(parts, "measuring", unit="batches", total=len(parts), at_once=1):
        inputs, targets = pad_batch(examples.sequences, indices)
        losses = _losses(model, (inputs, targets), plan)
        is_title = title_mask(targets, examples.title_starts[indices], examples.title_ends[indices])[
            targets != IGNORED_TARGET
        ]
        nats += losses.sum().item()
        title_nats += losses[is_title].sum().item()
        tokens += len(losses)
    return HeldOutLoss(nats / tokens, title_nats / math.log(2) / max(1, int(examples.title_chars.sum())))


def _losses(model: "GPT2LMHeadModel", batch: "Batch", plan: Plan) -> "torch.Tensor":
    """The loss of every target that counts, in row order."""
    import torch

    parts = _parts(batch, plan)
    return torch.cat(
        [token_losses(model, some.to(model.device), wanted.to(model.device)).cpu() for some, wanted in parts]
    )


def _parts(batch: "Batch", plan: Plan) -> "Iterator[Batch]":
    """The rows of a batch, no more at once than a plan has."""
    inputs, targets = batch
    rows = plan.rows(*inputs.shape)
    yield from zip(inputs.split(rows), targets.split(rows), strict=True)
