"""The loss of a network's predictions, without ever holding the logits of a whole batch."""

import functools
from typing import TYPE_CHECKING, Any

from redditgen.engines.data.batches import IGNORED_TARGET

if TYPE_CHECKING:
    import torch
    from transformers import GPT2LMHeadModel

ROWS_AT_ONCE = 256  # positions whose logits stand in memory together: 8 MB for mini, 51 MB for 124M
ROWS_TOGETHER = 512  # whose gradients are made together, in the precision of the computing: 51 MB for 124M in 16 bits
ROWS_ALIKE = 32  # the rows are filled up to a multiple of it


def summed_loss(model: "GPT2LMHeadModel", inputs: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor":
    """Negative log-likelihood in nats, summed over the targets that count, for `backward`."""
    counts = targets != IGNORED_TARGET
    hidden = model.transformer(input_ids=inputs).last_hidden_state[counts]
    total: torch.Tensor = _head_and_loss().apply(hidden, model.lm_head.weight, targets[counts])
    return total


def token_losses(model: "GPT2LMHeadModel", inputs: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor":
    """The same of every target that counts, in row order, without a gradient."""
    import torch
    from torch.nn import functional

    counts = targets != IGNORED_TARGET
    with torch.no_grad():
        hidden = model.transformer(input_ids=inputs).last_hidden_state[counts]
        slices = zip(hidden.split(ROWS_AT_ONCE), targets[counts].split(ROWS_AT_ONCE), strict=True)
        losses = [functional.cross_entropy(model.lm_head(h).float(), t, reduction="none") for h, t in slices]
    return torch.cat(losses)


@functools.cache
def _head_and_loss() -> "type[torch.autograd.Function]":
    """The last layer and its cross-entropy as one function, whose logits exist a slice of positions at a time.

    At GPT-2's 50,257 tokens the logits would be the largest thing in memory. The gradients are made slice by slice on
    the way forward, while the logits are in the cache; so nothing is computed twice, as it is with checkpointing.
    """
    import torch

    class HeadAndLoss(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            kind, count = hidden.device.type, len(hidden)
            dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
            with torch.autocast(kind, enabled=False):
                # oneDNN compiles matrix products for each size, and keeps them.
                hidden = torch.nn.functional.pad(hidden.to(dtype), (0, 0, 0, -count % ROWS_ALIKE))
                weight = weight.to(dtype)
                total = torch.zeros((), device=hidden.device)
                for_hidden, for_weight = torch.empty_like(hidden), None
                for start in range(0, len(hidden), ROWS_TOGETHER):
                    rows = hidden[start : start + ROWS_TOGETHER]
                    excess, loss = _excess(rows, weight, targets[start : start + ROWS_TOGETHER])
                    total += loss
                    torch.mm(excess, weight, out=for_hidden[start : start + ROWS_TOGETHER])
                    if ctx.needs_input_grad[1]:
                        for_weight = _added(for_weight, excess, rows)
                    del excess  # before the next one is made
            ctx.save_for_backward(for_hidden[:count], for_weight)
            return total

        @staticmethod
        def backward(ctx: Any, scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None, None]:
            for_hidden, for_weight = ctx.saved_tensors
            # In place: at GPT-2's vocabulary the weight's gradient is the largest tensor there is.
            return for_hidden.float() * scale, None if for_weight is None else for_weight.mul_(scale), None

    return HeadAndLoss


def _excess(
    hidden: "torch.Tensor", weight: "torch.Tensor", targets: "torch.Tensor"
) -> "tuple[torch.Tensor, torch.Tensor]":
    """The gradient of the loss by the logits, [rows, vocabulary], zero in rows beyond the targets, and the loss."""
    import torch

    excess = torch.empty(len(hidden), len(weight), dtype=hidden.dtype, device=hidden.device)
    excess[len(targets) :] = 0
    total = torch.zeros((), device=hidden.device)
    slices = (tensor.split(ROWS_AT_ONCE) for tensor in (hidden, targets, excess))
    for rows, wanted, found in zip(*slices, strict=False):
        scores = torch.log_softmax((rows @ weight.t())[: len(wanted)], dim=-1, dtype=torch.float32)
        total -= scores.gather(1, wanted[:, None]).sum()
        scores.exp_().scatter_add_(1, wanted[:, None], -torch.ones_like(wanted[:, None], dtype=scores.dtype))
        found[: len(wanted)] = scores
    return excess, total


def _added(sum_so_far: "torch.Tensor | None", excess: "torch.Tensor", rows: "torch.Tensor") -> "torch.Tensor":
    """The gradient of the loss by the last layer, in float32, with that of some rows in it."""
    import torch

    # float16 ends at 65,504, which a sum over rows would reach.
    shrunk = 64 if rows.dtype == torch.float16 else 1
    more = excess.t() @ (rows / shrunk if shrunk > 1 else rows)
    return more.float().mul_(shrunk) if sum_so_far is None else sum_so_far.add_(more, alpha=shrunk)
