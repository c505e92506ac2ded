import pytest
import torch

from redditgen.engines.base import RayWorkers
from redditgen.engines.data.batches import IGNORED_TARGET
from redditgen.engines.pytorch.loss import summed_loss
from redditgen.engines.pytorch.parallel import Ranks
from redditgen.engines.pytorch.ray_training import _shares
from redditgen.errors import UsageError
from redditgen.gpt2.model_dir import ModelDir
from redditgen.gpt2.tensor_names import new_network
from tests.support.fixture_types import Settings


@pytest.mark.parametrize("rows", [1, 2, 3, 7])
def test_ranks_share_the_rows_of_a_batch(rows: int) -> None:
    inputs = torch.arange(rows * 4).reshape(rows, 4)
    shares = [Ranks(rank, 3).own_rows((inputs, inputs + 1)) for rank in range(3)]
    counted = [pair for share in shares for pair in zip(*share, strict=True) if (pair[1] != IGNORED_TARGET).all()]
    assert sorted(row.tolist() for row, _ in counted) == inputs.tolist()
    assert all(torch.equal(row + 1, targets) for row, targets in counted)
    assert all(len(share) == max(1, len(range(rank, rows, 3))) for rank, (share, _) in enumerate(shares))


def test_a_rank_without_rows_learns_nothing(tiny: ModelDir) -> None:
    model = new_network(tiny.hyperparameters())
    inputs, targets = Ranks(1, 2).own_rows((torch.ones(1, 5, dtype=torch.long), torch.ones(1, 5, dtype=torch.long)))
    loss = summed_loss(model, inputs, targets)
    loss.backward()
    assert loss.item() == 0
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in model.parameters())


TWO = [{"CPU": 4.0}, {"CPU": 2.0}]
WITH_GPUS = [{"CPU": 8.0, "GPU": 1.0}, {"CPU": 8.0, "GPU": 2.0}]


@pytest.mark.parametrize(
    ("nodes", "asked", "count", "resources"),
    [
        (TWO, None, 2, {"CPU": 2}),
        (TWO, 1, 1, {"CPU": 4}),
        (TWO, 3, 3, {"CPU": 2}),
        (TWO, 6, 6, {"CPU": 1}),
        (WITH_GPUS, None, 3, {"GPU": 1}),
        (WITH_GPUS, 2, 2, {"GPU": 1}),
    ],
)
def test_each_worker_gets_a_gpu_or_as_many_cpus_as_there_are_for_all(
    nodes: list[dict[str, float]], asked: int | None, count: int, resources: dict[str, float]
) -> None:
    assert _shares(nodes, RayWorkers(number=asked, address=None)) == (count, resources)


@pytest.mark.parametrize(("nodes", "asked", "what"), [(TWO, 7, "6 CPUs"), (WITH_GPUS, 4, "3 GPUs")])
def test_more_workers_than_there_are_gpus_or_cpus_are_refused(
    nodes: list[dict[str, float]], asked: int, what: str
) -> None:
    with pytest.raises(UsageError, match=f"^--num-workers {asked}: ray has {what}, and each worker takes one$"):
        _shares(nodes, RayWorkers(number=asked, address=None))


@pytest.mark.parametrize("changes", [{"num_workers": 2}, {"ray_address": "127.0.0.1:6379"}])
def test_the_other_engine_knows_no_workers(changes: dict[str, object], finetuning: Settings) -> None:
    with pytest.raises(UsageError, match="--num-workers and --ray-address: are for --engine torch alone"):
        finetuning(engine="gpt-2-simple", **changes)
