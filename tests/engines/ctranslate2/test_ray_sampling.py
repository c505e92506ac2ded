"""Titles by ray's workers: those of one process, whatever becomes of a worker."""

import os
import shutil
import signal
import time
from contextlib import closing, suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from redditgen import __version__
from redditgen.engines.base import Sampling
from redditgen.engines.ctranslate2 import ray_sampling
from redditgen.engines.ctranslate2.ray_sampling import RaySampler, SamplingTask
from redditgen.engines.ctranslate2.sampler import Block
from redditgen.errors import InputError, MissingError, UsageError
from redditgen.files.atomic import file_sha256
from redditgen.generate.command import generate, generate_interactively
from redditgen.generate.output import write_titles
from redditgen.gpt2.model_dir import ModelDir
from redditgen.runtime.ray_pool import PoolMessages, RayPool, RayWorker
from tests.support.fixture_types import Generating, Redditgen
from tests.support.ray_nodes import Cluster, wait_until


@pytest.fixture
def run(checkpoint_dir: Path, tmp_path: Path) -> ModelDir:
    """A run of this test's own."""
    return ModelDir(shutil.copytree(checkpoint_dir / "trained", tmp_path / "runs/trained"))


@pytest.fixture
def task(run: ModelDir) -> SamplingTask:
    how = Sampling(temperature=0.7, top_k=40, top_p=0, length=40)
    return SamplingTask(run, run.weights_file(), file_sha256(run.weights_file()), "int8", how, ray_sampling._versions())


class Mortal(RaySampler):
    """One of them is killed at its third block: the one that deletes a file beside the runs."""

    blocks = 0

    def work(self, block: Block) -> list[str]:
        self.blocks += 1
        if self.blocks == 3:
            with suppress(FileNotFoundError):
                (self._task.run.path.parents[1] / "life").unlink()
                os.kill(os.getpid(), signal.SIGKILL)
        return super().work(block)


class Elsewhere(RaySampler):
    """On a node that does not have the folder of the run."""

    def __init__(self, task: SamplingTask) -> None:
        gone = task.run.path.parent / "gone"
        super().__init__(replace(task, run=ModelDir(gone), weights=gone / task.weights.name))


class Doubling(RayWorker[int, int]):
    """Knows no 13."""

    def __init__(self) -> None:
        self.package_versions = {}
        self.is_on_cluster = False

    def versions(self) -> dict[str, str]:
        return {}

    def load(self) -> None:
        pass

    def work(self, job: int) -> int:
        time.sleep(0.1)
        if job == 13:
            raise InputError("13: no number")
        return 2 * job


@pytest.mark.slow
def test_a_pool_does_new_jobs_in_order_whatever_became_of_the_ones_before(running_ray: Any) -> None:
    words = PoolMessages[int](without_ray="", waiting_for="", job=str, remedy="")
    actor = running_ray.remote(num_cpus=1)(Doubling)
    with closing(RayPool[int, int](running_ray, actor.remote, 2, words, jobs_per_worker=2)) as pool:
        with closing(pool.results(range(100))) as first:
            assert list(islice(first, 3)) == [0, 2, 4]
        with pytest.raises(InputError, match=r"^13: no number$"):
            list(pool.results([11, 12, 13, 14, 15]))
        assert list(pool.results(range(20, 30))) == list(range(40, 60, 2))
        assert list(pool.results([])) == []


@pytest.mark.slow
def test_workers_of_which_one_is_killed_write_what_one_process_does_and_each_title_once(
    running_ray: Any,
    generating: Generating,
    run: ModelDir,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """In several windows of several rounds."""
    monkeypatch.setattr(ray_sampling, "RaySampler", Mortal)
    (tmp_path / "life").touch()
    settings = generating(n=80, batch_size="4", unique=True, temperature=1.0, checkpoint_dir=run.path.parent)
    alone = list(generate(settings))
    assert len({title.title for title in alone}) == 80
    assert list(generate(replace(settings, ray_address="auto"))) == alone
    assert caplog.text.count("a ray worker died") == 1
    assert not (tmp_path / "life").exists()
    wait_until(lambda: running_ray.available_resources().get("CPU") == 2)


@pytest.mark.slow
def test_a_node_without_the_folder_of_the_run_ends_it_in_a_line(
    running_ray: Any,
    generating: Generating,
    run: ModelDir,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(ray_sampling, "RaySampler", Elsewhere)
    settings = generating(checkpoint_dir=run.path.parent, ray_address="auto", out=tmp_path / "titles.txt")
    message = r"^ray node \S+: \S+/gone/model-120.index: No such file or directory; all nodes must share the folder of"
    with pytest.raises(InputError, match=message) as caught:
        write_titles(settings)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    answers = ["cats", "ball", "dogs", "sofa"]

    def answer(question: str) -> str:
        if not answers:
            raise EOFError
        return answers.pop(0)

    assert list(generate_interactively(replace(settings, out=None), answer)) == []
    assert caplog.text.count("all nodes must share the folder of the run") == 2


@pytest.mark.slow
def test_a_cluster_writes_the_same_bytes_and_stays(
    two_nodes: Cluster, redditgen: Redditgen, run: ModelDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    command = ["generate", "--run", "trained", "--checkpoint-dir", "runs", "--no-novel"]
    options = ["-n", "60", "--seed", "4", "--batch-size", "8", "--keywords", "cat"]
    here = redditgen(*command, *options, "--out", "here.jsonl")
    assert here.returncode == 0, here.stderr
    there = redditgen(*command, *options, "--out", "there.jsonl", "--ray-address", two_nodes.address)
    assert (there.returncode, there.stdout) == (0, ""), there.stderr
    assert (tmp_path / "there.jsonl").read_bytes() == (tmp_path / "here.jsonl").read_bytes()
    assert two_nodes.is_complete()


def test_a_worker_refuses_other_weights_and_other_versions(task: SamplingTask) -> None:
    weights = task.weights
    weights.write_bytes(weights.read_bytes() + b"\0")
    error = RaySampler(task).ready()
    assert isinstance(error, InputError)
    assert str(error).endswith(f"{weights}: is another one than here; all nodes must share the folder of the run")
    error = RaySampler(replace(task, package_versions=task.package_versions | {"redditgen": "0.0"})).ready()
    assert isinstance(error, MissingError)
    assert str(error).startswith("ray node ")
    assert str(error).endswith(f": redditgen is {__version__}, and here 0.0; have the same there")


def test_gpt_2_simple_writes_on_no_cluster(generating: Generating) -> None:
    with pytest.raises(UsageError, match=r"^--ray-address: is for --engine torch alone; leave it out$"):
        generating(engine="gpt-2-simple", ray_address="auto")
