"""The processes that train one network together: what each learns from, and what they agree on.

Whoever starts them sets up torch.distributed. Each makes every batch, takes its own rows of it, and has PyTorch's
DistributedDataParallel add up the gradients.
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
    """This process, number `rank` of `count`, and how many of them are on this machine."""

    rank: int = 0
    count: int = 1
    here: int = 1

    def own(self, batch: "Batch") -> "Batch":
        """This process's rows of a batch; where there are fewer rows than processes, one in which nothing counts."""
        import torch

        inputs, targets = batch
        if len(inputs) <= self.rank:
            return inputs[:1], torch.full_like(targets[:1], IGNORED_TARGET)
        return inputs[self.rank :: self.count], targets[self.rank :: self.count]

    def broadcast(self, value: T) -> T:
        """What the first process gives; all must ask."""
        if self.count == 1:
            return value
        from torch.distributed import broadcast_object_list

        values = [value]
        broadcast_object_list(values)
        return values[0]

    def sum_over_ranks(self, number: float, device: "torch.device") -> float:
        """The sum of what each gives; all must ask."""
        if self.count == 1:
            return number
        import torch

        total = torch.tensor(number, dtype=torch.float64, device=device)
        torch.distributed.all_reduce(total)
        return total.item()

    def losses(self, model: "GPT2LMHeadModel") -> "DistributedDataParallel":
        """The summed loss of a network's inputs and targets as a module that shares its gradients: their mean."""
        import torch

        class SummedLoss(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.model = cast("torch.nn.Module", model)

            def forward(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
                return summed_loss(cast(Any, self.model), inputs, targets)

        # Gradients as views, or each would stand in memory twice.
        return torch.nn.parallel.DistributedDataParallel(SummedLoss(), gradient_as_bucket_view=True)


SINGLE_PROCESS = Ranks()
