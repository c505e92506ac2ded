"""Finetuning by two of ray's workers, on PyTorch's gloo."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from redditgen.errors import RedditgenError
from redditgen.finetune.command import finetune
from redditgen.gpt2.metrics import Report
from redditgen.gpt2.model_dir import ModelDir
from redditgen.settings import FinetuneSettings
from tests.support.fixture_types import Settings
from tests.support.ray_nodes import Cluster, wait_until

pytestmark = pytest.mark.slow


def run_of(settings: FinetuneSettings) -> ModelDir:
    return ModelDir(settings.checkpoint_dir / settings.run)


def reports(settings: FinetuneSettings) -> list[Report]:
    return run_of(settings).metrics.reports()


def assert_alike(settings: FinetuneSettings, others: FinetuneSettings) -> None:
    """Each loss, and each held-out loss, to 1e-4."""
    assert [report.step for report in reports(settings)] == list(range(settings.steps + 1))
    for one, other in zip(reports(settings), reports(others), strict=True):
        assert one.step == other.step
        assert one.loss == pytest.approx(other.loss, abs=1e-4)
        assert one.val_loss == pytest.approx(other.val_loss, abs=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 40, "val_every": 10},  # two epochs, each with a batch at its end that is smaller
        {"accumulate_gradients": 2, "loss_on": "title", "train": "lora", "learning_rate": 1e-2},
    ],
    ids=["full", "lora"],
)
def test_two_workers_learn_what_one_does_of_batches_twice_as_large(
    running_ray: Any, finetuning: Settings, changes: dict[str, Any]
) -> None:
    alone = finetuning(run="alone", batch_size=14, **changes)
    both = finetuning(run="both", batch_size=7, num_workers=2, **changes)
    assert finetune(alone) == finetune(both) == alone.steps
    assert_alike(both, alone)
    assert reports(both)[0].val_loss != pytest.approx(reports(both)[-1].val_loss, abs=1e-2)
    assert {path.name for path in run_of(both).path.iterdir()} >= {"checkpoint", f"model-{both.steps}.index"}
    assert not (run_of(both).path / ".ray").exists()


def test_what_ends_a_training_ends_that_of_two_workers_alike(running_ray: Any, finetuning: Settings) -> None:
    with pytest.raises(RedditgenError, match=r"^\S+: the loss is \S+ at step \d+, after .*; nothing was saved; lower"):
        finetune(finetuning(num_workers=2, steps=200, learning_rate=1e3, optimizer="sgd"))


def test_a_worker_that_is_killed_ends_it_in_one_line(running_ray: Any, finetuning: Settings) -> None:
    settings = finetuning(num_workers=2, steps=100_000, save_every=5, print_every=0)

    def kill_one() -> None:
        wait_until(lambda: (run_of(settings).path / "checkpoint").exists())
        names = {process: " ".join(process.cmdline()) for process in psutil.Process().children(recursive=True)}
        next(process for process, name in names.items() if "RayTrainWorker" in name).kill()

    with ThreadPoolExecutor(1) as killer:
        killing = killer.submit(kill_one)
        with pytest.raises(RedditgenError, match=r"^\S+: a ray worker failed: .*; the checkpoint of step \d+ is kept$"):
            finetune(settings)
        killing.result()


def test_ctrl_c_saves_and_the_same_command_goes_on(finetuning: Settings) -> None:
    settings = finetuning(num_workers=2, steps=60, val_every=20, batch_size=4)
    with started(settings) as process:
        assert process.stderr and process.stdout
        said = []
        for line in process.stderr:
            said.append(line)
            if line.startswith("[5 |"):
                os.killpg(process.pid, signal.SIGINT)
        assert process.stdout.read() == ""
    run = run_of(settings)
    assert process.returncode == 130, said
    assert said[-1] == f"redditgen: {run.path}: saved at step {run.step()}; the same command goes on from there\n"
    assert said[1] == "starting 2 workers of ray, each with 1 CPU\n"
    assert 5 <= run.step() < 60
    # On a slow machine, where the steps take longer than 30 seconds, there are lines of progress besides.
    expected = ("plan:", "[", "waiting for workers", f"{run.path.name}: ")
    assert all(line.startswith(expected) for line in said[2:-1]), said
    alone = replace(settings, run="alone", num_workers=None, batch_size=8)
    assert finetune(settings) == finetune(alone) == 60
    assert_alike(settings, alone)


def started(settings: FinetuneSettings, **environment: str) -> "subprocess.Popen[str]":
    changed = {
        name: value
        for name, value in vars(settings).items()
        if value != getattr(FinetuneSettings(dataset=Path()), name) and name != "dataset"
    }
    options = [part for name, value in changed.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    return subprocess.Popen(
        [sys.executable, "-m", "redditgen", "finetune", str(settings.dataset), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | environment,
    )


def test_a_cluster_trains_a_worker_on_each_node(two_nodes: Cluster, finetuning: Settings) -> None:
    settings = finetuning(ray_address=two_nodes.address, batch_size=4)
    with started(settings, RAY_AUTH_MODE="disabled") as process:
        out, err = process.communicate(timeout=200)
    assert (process.returncode, out) == (0, ""), err
    assert "starting 2 workers of ray, each with 1 CPU\n" in err
    assert run_of(settings).step() == 6
    assert two_nodes.is_complete()
    alone = replace(settings, run="alone", ray_address=None, batch_size=8)
    finetune(alone)
    assert_alike(settings, alone)
