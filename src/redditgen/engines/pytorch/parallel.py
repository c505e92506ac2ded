"""Data-parallel training: how processes share the rows of a batch, and exchange gradients and values.

1. Every process holds the whole network and makes every batch, which follows from the seed.
2. Process r of n trains on rows r, r + n, r + 2n ... of it.
3. In the last backward pass of a step, PyTorch's DistributedDataParallel replaces each gradient with its mean over the
   processes. Each process multiplied its loss by n, so the mean is the sum, the gradient of the whole batch.
4. Every process takes the same optimizer step.

A step exchanges the gradients of the trained parameters once, in float32, and in addition the loss and the decision
whether to end. Each process takes the memory of a training alone, with its own rows as the batch, and PyTorch's buckets
for the exchange. The caller starts the processes and sets up torch.distributed.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

from redditgen.engines.data.batches import IGNORED_TARGET
from redditgen.engines.pytorch.loss import summed_loss

if TYPE_CHECKING:
    import torch
    from torch.nn.parallel import DistributedDataParallel
    from transformers import GPT2LMHeadModel

    Batch = tuple[torch.Tensor, torch.Tensor]  # inputs and targets, both [rows, tokens]

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """The place of this process among those that train together."""

    rank: int = 0
    """The number of this process, from 0."""
    count: int = 1
    """Processes in all."""
    count_on_node: int = 1
    """Processes on this machine."""

    def own_rows(self, batch: "Batch") -> "Batch":
        """Return this process's rows of a batch, as inputs and targets, both [rows, positions].

        A process without rows gets the first one with targets of IGNORED_TARGET, so that it too has gradients, of zero,
        to exchange.
        """
        import torch

        inputs, targets = batch
        if len(inputs) <= self.rank:
            return inputs[:1], torch.full_like(targets[:1], IGNORED_TARGET)
        return inputs[self.rank :: self.count], targets[self.rank :: self.count]

    def broadcast(self, value: T) -> T:
        """Return the `value` of the first process. All processes must call this together."""
        if self.count == 1:
            return value
        from torch.distributed import broadcast_object_list

        values = [value]
        broadcast_object_list(values)
        return values[0]

    def sum_over_ranks(self, number: float, device: "torch.device") -> float:
        """Return the sum of the processes' numbers. All processes must call this together."""
        if self.count == 1:
            return number
        import torch

        total = torch.tensor(number, dtype=torch.float64, device=device)
        torch.distributed.all_reduce(total)
        return total.item()

    def parallel_loss(self, model: "GPT2LMHeadModel") -> "DistributedDataParallel":
        """Return a module that computes `summed_loss` of a network from inputs and targets.

        Its backward pass replaces the gradients with their mean over the processes.
        """
        import torch

        class SummedLoss(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.model = cast("torch.nn.Module", model)

            def forward(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
                return summed_loss(cast(Any, self.model), inputs, targets)

        # Gradients are views into the buckets that are exchanged; as copies, each would be in memory twice.
        return torch.nn.parallel.DistributedDataParallel(SummedLoss(), gradient_as_bucket_view=True)


SINGLE_PROCESS = Ranks()
