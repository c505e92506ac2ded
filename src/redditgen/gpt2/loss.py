"""The loss of a network's predictions, without ever holding the logits of a whole batch."""

import functools
from typing import TYPE_CHECKING, Any

from redditgen.gpt2.batches import IGNORED

if TYPE_CHECKING:
    import torch
    from transformers import GPT2LMHeadModel

ROWS_AT_ONCE = 256  # positions whose logits stand in memory together: 8 MB for mini, 51 MB for 124M


def summed_loss(model: "GPT2LMHeadModel", inputs: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor":
    """Negative log-likelihood in nats, summed over the targets that count, for `backward`."""
    counts = targets != IGNORED
    hidden = model.transformer(input_ids=inputs).last_hidden_state[counts]
    total: torch.Tensor = _head_and_loss().apply(hidden, model.lm_head.weight, targets[counts])
    return total


def token_losses(model: "GPT2LMHeadModel", inputs: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor":
    """The same of every target that counts, in row order, without a gradient."""
    import torch
    from torch.nn import functional

    counts = targets != IGNORED
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
            kind = hidden.device.type
            dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
            with torch.autocast(kind, enabled=False):
                hidden, weight = hidden.to(dtype), weight.to(dtype)
                total = torch.zeros((), device=hidden.device)
                for_hidden = torch.empty_like(hidden)
                learns = ctx.needs_input_grad[1]
                for_weight = torch.zeros(weight.shape, device=weight.device) if learns else None
                # float16 ends at 65,504, which a sum over rows would reach.
                shrunk = 64 if dtype == torch.float16 else 1
                slices = (tensor.split(ROWS_AT_ONCE) for tensor in (hidden, targets, for_hidden))
                for rows, wanted, gradient in zip(*slices, strict=True):
                    scores = torch.log_softmax((rows @ weight.t()).float(), dim=-1)
                    total -= scores.gather(1, wanted[:, None]).sum()
                    excess = scores.exp_()
                    excess.scatter_add_(1, wanted[:, None], -torch.ones_like(wanted[:, None], dtype=excess.dtype))
                    excess = excess.to(dtype)
                    torch.mm(excess, weight, out=gradient)
                    if for_weight is not None:
                        for_weight.add_(excess.t() @ (rows / shrunk if shrunk > 1 else rows), alpha=shrunk)
                    del scores, excess  # before the next slice's are made
            ctx.save_for_backward(for_hidden, for_weight)
            return total

        @staticmethod
        def backward(ctx: Any, scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None, None]:
            for_hidden, for_weight = ctx.saved_tensors
            # In place: at GPT-2's vocabulary the weight's gradient is the largest tensor there is.
            return for_hidden.float() * scale, None if for_weight is None else for_weight.mul_(scale), None

    return HeadAndLoss
