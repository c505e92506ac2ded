"""A network in training: its steps, its held-out loss, its samples and its weights.

A step works in these parts:

1. Each batch of the step is split into parts of as many rows as the plan computes at once.
2. For each part, the forward pass runs in the plan's precision, by autocast; matrix products take 16 bits, the sums of
   the residual stream, the norms and the losses float32 (mixed precision, Micikevicius et al. 2017, arXiv:1710.03740).
   The backward pass adds the part's gradients to those of the parts before it.
3. Each part's loss is its sum over targets, divided by the number of targets of the whole step. So the gradient is that
   of the mean loss of the step, however it is split.
4. The optimizer updates the weights at the step's learning rate.

A step costs one forward and one backward pass over its positions; with checkpointing (Chen et al. 2016,
arXiv:1604.06174), a second forward pass of the layers. Memory is that of the plan (see `memory_plan`). Where it runs
out all the same, the step is repeated with a lighter plan, which stays in use.

The learning rate rises linearly over WARM_UP steps, stays constant, and falls linearly to zero over the last DECAY of
the steps. For plain gradient descent it is constant throughout, as in gpt-2-simple.
"""

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

WARM_UP = 20  # steps over which the learning rate rises
DECAY = 0.2  # the share of all steps, at the end, over which the learning rate falls to zero

DEFAULT_PLAN = Plan()

_log = logging.getLogger(__name__)


def learning_rate(step: int, end: int, full: float) -> float:
    """Return the learning rate of a step, counted from 1: at most `full`, and zero at the step after `end`."""
    remaining = (end - step + 1) / max(1.0, DECAY * end)
    return full * min(1.0, step / WARM_UP, remaining)


@dataclass(frozen=True)
class HeldOutLoss:
    """The mean losses of a network on held-out records."""

    loss: float
    """Nats a token, over all tokens."""
    bits_per_char: float
    """Bits a character of the titles: the loss of their tokens and of the end of the title, for each character."""


class Training:
    """A network in training, on the best device of this process."""

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
        """Load the tensors that `weights` returns into a network, and prepare it for training by a plan.

        `rate` is the highest learning rate, and `end` the last step, after which it is zero. `optimizer` is `adam`, or
        `sgd`: plain gradient descent at a constant rate and without clipping, as gpt-2-simple's.

        When the plan trains LoRA adapters, `weights` is called again whenever the adapters are merged, so that the
        float32 weights need not stay in memory. `base` then names those weights for saved adapters, `adapters` is the
        folder of saved adapters to continue training, and `seed` initializes new ones.

        With several `ranks`, each process creates its own Training, and they take every step together. Raises
        InputError where saved adapters can't be loaded, and MissingError where the plan needs bitsandbytes and it is
        not installed.
        """
        self.device = best_device()
        self.hyperparameters, self.rate, self.end, self.plan, self.ranks = hyperparameters, rate, end, plan, ranks
        if self.device.type == "cpu":
            limit_kernel_caches()
            if plan.saves_memory:
                return_freed_memory()
        self._read_weights, self.is_sgd = weights, optimizer == "sgd"
        self.model = load_network(hyperparameters, weights(), plan, self.device)
        self.model.generation_config.pad_token_id = hyperparameters.n_vocab - 1
        self.adapters: Adapters | None = None
        if plan.train == "lora":
            self.adapters = Adapters(self.model, plan.lora_rank, base, seed=seed)
            if adapters:
                self.adapters.load(adapters)
        self.trainable = dict(trainable_parameters(self.model, plan.train, hyperparameters.n_layer))
        for parameter in self.trainable.values():
            parameter.requires_grad_(True)
        if plan.checkpointing:
            self._enable_checkpointing()
        self.optimizer = self._create_optimizer(optimizer)
        self._parallel_loss = ranks.parallel_loss(self.model) if ranks.count > 1 else None
        self.model.train()

    def _create_optimizer(self, kind: str) -> Optimizer:
        """Return the optimizer that the plan asks for; `kind` is `adam` or `sgd`."""
        import torch

        if self.plan.optimizer_bits == 32:
            return Optimizer(self.trainable, kind, self.plan.precision)
        embedding_name, twins = "transformer.wte.weight", {}
        if embedding_name in self.trainable:
            # The embeddings serve as the output layer too. As a parameter of its own, the output layer has its gradient
            # complete, and moved to 16 bits, long before the backward pass reaches the input.
            twins[embedding_name] = self.model.lm_head.weight = torch.nn.Parameter(
                self.trainable[embedding_name].detach()
            )
        return LowMemoryOptimizer(self.trainable, twins, self.plan.precision)

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 1."""
        return self.rate if self.is_sgd else learning_rate(step, self.end, self.rate)

    def step(self, number: int, *batches: "Batch") -> float:
        """Take step `number`, counted from 1, on all these batches; return their mean loss in nats a token.

        The loss is that before the update. A batch is inputs and targets, both [rows, positions] int64; targets of
        IGNORED_TARGET don't count. Where memory runs out, the step is repeated with a lighter plan. Raises InputError
        where there is none, or where the memory of one of several processes runs out.
        """
        while (loss := self._gradients_unless_out_of_memory(batches)) is None:
            self._use_lighter_plan(*max((inputs.shape for inputs, _ in batches), key=math.prod))
        self.optimizer.step(self.learning_rate(number))
        self.optimizer.clear()
        return loss

    def gradients(self, *batches: "Batch") -> float:
        """Compute the gradients of the mean loss over the targets that count in all batches; return that loss."""
        tokens = max(1, sum(int((targets != IGNORED_TARGET).sum()) for _, targets in batches))
        parts = [part for batch in batches for part in _split_rows(self.ranks.own_rows(batch), self.plan)]
        total = 0.0
        for number, (inputs, targets) in enumerate(parts, start=1):
            with self._gradient_exchange(is_last=number == len(parts)):
                with self._autocast():
                    loss = (self._parallel_loss or self._summed_loss)(
                        inputs.to(self.device), targets.to(self.device)
                    ) / tokens
                # DistributedDataParallel takes the mean of the processes' gradients; multiplied so, it is their sum.
                (loss * self.ranks.count * self.optimizer.scale.factor).backward()
            total += loss.item()
        return self.ranks.sum_over_ranks(total, self.device)

    def _summed_loss(self, inputs: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor":
        return summed_loss(self.model, inputs, targets)

    def _gradient_exchange(self, *, is_last: bool) -> AbstractContextManager[Any]:
        """Return a context in which a backward pass exchanges gradients only if it is the last of the step."""
        return self._parallel_loss.no_sync() if self._parallel_loss and not is_last else nullcontext()

    def loss(self, *batches: "Batch") -> float:
        """Return the mean loss over the targets that count in all batches, in nats a token, without training."""
        tokens = max(1, sum(int((targets != IGNORED_TARGET).sum()) for _, targets in batches))
        with self._autocast():
            total = sum(float(_batch_token_losses(self.model, batch, self.plan).sum()) for batch in batches)
        return total / tokens

    def _gradients_unless_out_of_memory(self, batches: "tuple[Batch, ...]") -> float | None:
        """Return the loss as `gradients` does, or None where memory ran out; the activations are freed by then."""
        try:
            return self.gradients(*batches)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if self.ranks.count > 1:  # the other processes wait in the middle of this step, which they could not repeat
                raise InputError(
                    "memory ran out in one of the workers; pass a smaller --batch-size or --memory"
                ) from error
            return None

    def _use_lighter_plan(self, rows: int, length: int) -> None:
        """Switch to a lighter plan after memory ran out with a batch of `rows` of `length` tokens.

        Raises InputError where there is none.
        """
        import torch

        lighter = self.plan.lighter(rows, length)
        if lighter is None:
            raise InputError(
                "memory ran out with one record at a time and the layers computed twice; pass --train lora, a smaller "
                "--memory or a smaller --model"
            )
        _log.warning("memory ran out with %s; going on with %s", self.plan, lighter)
        if lighter.checkpointing and not self.plan.checkpointing:
            self._enable_checkpointing()
        self.plan = lighter
        self.optimizer.clear()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _enable_checkpointing(self) -> None:
        """Have each layer keep only its input, and recompute its activations in the backward pass."""
        # transformers renamed the method in 5.23; its former name warns there.
        model: Any = self.model
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})

    def evaluate(self, examples: Examples, size: int) -> HeldOutLoss:
        """Measure the network on held-out records, in batches of `size`."""
        with self._autocast():
            return measure_held_out_loss(self.model, examples, size, self.plan)

    def sample(self, prompt: list[int], number: int, length: int, *, seed: int) -> list[list[int]]:
        """Return `number` continuations of a prompt, each of at most `length` tokens.

        They are sampled at a temperature of 0.7 from the 40 likeliest tokens; gpt-2-simple's training samples from as
        many, at a temperature of 1. `prompt` and the results are lists of tokens. The state of torch's random
        generators does not change.
        """
        import torch

        inputs = torch.tensor([prompt] * number, device=self.device)
        devices = [self.device] if self.device.type == "cuda" else []
        self.model.eval()  # with checkpointing, a network in training mode ignores the cache, and generates nonsense
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
        """Return the present weights in float32, with adapters merged into them, under OpenAI's names."""
        if not self.adapters:
            return tensors_of_network(self.model, self.hyperparameters)
        tensors = self._read_weights()
        self.adapters.merge_into(tensors)
        return tensors

    def optimizer_state(self) -> "Tensors":
        """Return the state of the optimizer, for `restore_optimizer`."""
        return self.optimizer.state()

    def restore_optimizer(self, state: "Tensors", step: int) -> None:
        """Restore the state of the optimizer after a step. Raises InputError where it is of another network."""
        self.optimizer.restore(state, step)

    def _autocast(self) -> "torch.autocast":
        import torch

        # The cache would hold every weight a second time, to no use: each is used once in a pass.
        dtype = torch.float16 if self.plan.precision == "float16" else torch.bfloat16
        is_needed = self.plan.precision != "float32"
        return torch.autocast(self.device.type, dtype, enabled=is_needed, cache_enabled=False)


def measure_held_out_loss(
    model: "GPT2LMHeadModel", examples: Examples, size: int, plan: Plan = DEFAULT_PLAN
) -> HeldOutLoss:
    """Measure a network on held-out records, in batches of `size`, in the precision that the caller has set.

    `examples` must not be empty. `plan` limits how much of a batch is computed at once.
    """
    nats = title_nats = 0.0
    tokens = 0
    parts = batches_by_length(examples.sequences.lengths, size, np.random.default_rng(0))
    for indices in track(parts, "measuring", unit="batches", total=len(parts), at_once=1):
        inputs, targets = pad_batch(examples.sequences, indices)
        losses = _batch_token_losses(model, (inputs, targets), plan)
        is_title = title_mask(targets, examples.title_starts[indices], examples.title_ends[indices])[
            targets != IGNORED_TARGET
        ]
        nats += losses.sum().item()
        title_nats += losses[is_title].sum().item()
        tokens += len(losses)
    return HeldOutLoss(nats / tokens, title_nats / math.log(2) / max(1, int(examples.title_chars.sum())))


def _batch_token_losses(model: "GPT2LMHeadModel", batch: "Batch", plan: Plan) -> "torch.Tensor":
    """Return the loss in nats of every target that counts in a batch, [counted targets] on the CPU, in row order."""
    import torch

    parts = _split_rows(batch, plan)
    return torch.cat(
        [token_losses(model, inputs.to(model.device), targets.to(model.device)).cpu() for inputs, targets in parts]
    )


def _split_rows(batch: "Batch", plan: Plan) -> "Iterator[Batch]":
    """Yield a batch in parts, each of as many rows as the plan computes at once."""
    inputs, targets = batch
    rows = plan.rows(*inputs.shape)
    yield from zip(inputs.split(rows), targets.split(rows), strict=True)
