"""The cross-entropy of a network's predictions, computed without holding the logits of a whole batch.

With GPT-2's vocabulary V of 50,257, the logits [N, V] of N positions would be the largest tensor in memory: 412 MB in
float32 for 2,048 positions. So the output layer, with its weight W [V, E], and the loss are one autograd function that
works on slices:

1. Take the hidden states [N, E] of the positions whose target counts; pad N to a multiple of ROWS_ALIKE.
2. For each ROWS_AT_ONCE rows, compute the logits, their log-softmax in float32, the loss, and the gradient of the loss
   by the logits, softmax(logits) - onehot(target), which is kept in the computing precision.
3. For each ROWS_TOGETHER rows of that gradient G, compute the hidden states' gradient G W, and add the weight's
   gradient, G^T times the hidden states, to a float32 sum, unless the weight is frozen.
4. The backward pass only multiplies both results by the gradient of the loss.

The three products of N x V x E multiply-adds are those of an ordinary output layer, and none is computed twice, as
activation checkpointing would. Memory holds ROWS_AT_ONCE x V logits, in the computing precision and in float32,
ROWS_TOGETHER x V of their gradient, and the two resulting gradients, [N, E] and [V, E].
"""

import functools
from typing import TYPE_CHECKING, Any

from redditgen.engines.data.batches import IGNORED_TARGET

if TYPE_CHECKING:
    import torch
    from transformers import GPT2LMHeadModel

LOGIT_ROWS = 256  # positions whose logits are in memory together: 8 MB in float32 for mini, 51 MB for 124M
GRADIENT_ROWS = 512  # positions whose logits' gradient is in memory together: 51 MB for 124M in 16 bits
ROW_MULTIPLE = 32  # the number of rows is padded to a multiple of this


def summed_loss(model: "GPT2LMHeadModel", inputs: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor":
    """Return the negative log-likelihood in nats, a differentiable scalar, summed over the targets that count.

    `inputs` and `targets` are [rows, positions] int64; targets of IGNORED_TARGET don't count.
    """
    is_counted = targets != IGNORED_TARGET
    hidden = model.transformer(input_ids=inputs).last_hidden_state[is_counted]
    total: torch.Tensor = _head_and_loss_function().apply(hidden, model.lm_head.weight, targets[is_counted])
    return total


def token_losses(model: "GPT2LMHeadModel", inputs: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor":
    """Return the negative log-likelihood in nats of every target that counts, [counted targets] float32, in row order.

    `inputs` and `targets` are as for `summed_loss`. Nothing is recorded for a backward pass.
    """
    import torch
    from torch.nn import functional

    is_counted = targets != IGNORED_TARGET
    with torch.no_grad():
        hidden = model.transformer(input_ids=inputs).last_hidden_state[is_counted]
        slices = zip(hidden.split(LOGIT_ROWS), targets[is_counted].split(LOGIT_ROWS), strict=True)
        losses = [functional.cross_entropy(model.lm_head(h).float(), t, reduction="none") for h, t in slices]
    return torch.cat(losses)


@functools.cache
def _head_and_loss_function() -> "type[torch.autograd.Function]":
    """Return the autograd function of the output layer and its summed cross-entropy, as the module describes it.

    Its inputs are hidden states [N, E], the weight [V, E] and targets [N]. It computes the gradients in the forward
    pass, slice by slice, while the logits are in the processor's cache. The class is created here, once, since torch is
    only imported when it is needed.
    """
    import torch

    class HeadAndLoss(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            device_type, count = hidden.device.type, len(hidden)
            dtype = torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else weight.dtype
            with torch.autocast(device_type, enabled=False):
                # Padded, since oneDNN compiles a kernel for each size of a matrix product and keeps it.
                hidden = torch.nn.functional.pad(hidden.to(dtype), (0, 0, 0, -count % ROW_MULTIPLE))
                weight = weight.to(dtype)
                total = torch.zeros((), device=hidden.device)
                hidden_gradient, weight_gradient = torch.empty_like(hidden), None
                for start in range(0, len(hidden), GRADIENT_ROWS):
                    rows = hidden[start : start + GRADIENT_ROWS]
                    logit_gradient, loss = _logit_gradient_and_loss(
                        rows, weight, targets[start : start + GRADIENT_ROWS]
                    )
                    total += loss
                    torch.mm(logit_gradient, weight, out=hidden_gradient[start : start + GRADIENT_ROWS])
                    if ctx.needs_input_grad[1]:
                        weight_gradient = _add_weight_gradient(weight_gradient, logit_gradient, rows)
                    del logit_gradient  # frees its memory before the next one is allocated
            ctx.save_for_backward(hidden_gradient[:count], weight_gradient)
            return total

        @staticmethod
        def backward(ctx: Any, scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None, None]:
            hidden_gradient, weight_gradient = ctx.saved_tensors
            # In place, since with GPT-2's vocabulary the weight's gradient is the largest tensor in memory.
            return (
                hidden_gradient.float() * scale,
                None if weight_gradient is None else weight_gradient.mul_(scale),
                None,
            )

    return HeadAndLoss


def _logit_gradient_and_loss(
    hidden: "torch.Tensor", weight: "torch.Tensor", targets: "torch.Tensor"
) -> "tuple[torch.Tensor, torch.Tensor]":
    """Return the gradient of the summed loss by the logits, [rows, V], and the summed loss, a scalar.

    `hidden` is [rows, E] and `weight` [V, E], both in the computing precision, which is also the gradient's. Rows after
    the last of the `targets` are padding, with a gradient of zero.
    """
    import torch

    logit_gradient = torch.empty(len(hidden), len(weight), dtype=hidden.dtype, device=hidden.device)
    logit_gradient[len(targets) :] = 0
    total = torch.zeros((), device=hidden.device)
    slices = (tensor.split(LOGIT_ROWS) for tensor in (hidden, targets, logit_gradient))
    for rows, labels, slice_gradient in zip(*slices, strict=False):
        scores = torch.log_softmax((rows @ weight.t())[: len(labels)], dim=-1, dtype=torch.float32)
        total -= scores.gather(1, labels[:, None]).sum()
        scores.exp_().scatter_add_(1, labels[:, None], -torch.ones_like(labels[:, None], dtype=scores.dtype))
        slice_gradient[: len(labels)] = scores
    return logit_gradient, total


def _add_weight_gradient(
    sum_so_far: "torch.Tensor | None", logit_gradient: "torch.Tensor", rows: "torch.Tensor"
) -> "torch.Tensor":
    """Return the float32 gradient by the output layer's weight, [V, E], with these rows' share added in place.

    `logit_gradient` is [rows, V] and `rows`, their hidden states, [rows, E]. `sum_so_far` is None for the first rows.
    """
    import torch

    # float16's largest number is 65,504, which a sum over rows could exceed; so float16 rows are divided first.
    divisor = 64 if rows.dtype == torch.float16 else 1
    product = logit_gradient.t() @ (rows / divisor if divisor > 1 else rows)
    return product.float().mul_(divisor) if sum_so_far is None else sum_so_far.add_(product, alpha=divisor)
