"""Blocks of prompts continued by ray's workers, each at one block at a time; the texts are those of one process.

That holds for CPUs of one kind: CTranslate2's int8 rounds otherwise for each instruction set. In float32 no title was
another.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from redditgen import __version__
from redditgen.engines.base import BLOCKS_AT_ONCE, SamplerOptions, Sampling, WriteTexts
from redditgen.engines.ctranslate2.sampler import Block, Sampler, choose_precision, texts_in_order
from redditgen.errors import InputError
from redditgen.files.atomic import file_sha256
from redditgen.gpt2.model_dir import ModelDir
from redditgen.runtime.ray_cluster import ray_connection
from redditgen.runtime.ray_pool import PoolMessages, RayPool, RayWorker

_WORDS = PoolMessages[Block](
    without_ray="leaving --ray-address out",
    waiting_for="CPUs of the ray cluster that others leave free, and for the workers to start there",
    job=lambda block: f"a block of {len(block.prompts)} prompts",
    remedy="a smaller --batch-size takes less memory",
)


@dataclass(frozen=True)
class SamplingTask:
    """What a worker shall write with, and how it knows that it has the very same."""

    run: ModelDir
    weights: Path
    weights_sha256: str
    precision: str
    sampling: Sampling
    made_with: dict[str, str]


@contextmanager
def open_ray_writer(run: ModelDir, sampling: Sampling, options: SamplerOptions) -> Iterator[WriteTexts]:
    """Inside the block workers write. Their nodes need the run's folder at the same path."""
    there, kept_in = ModelDir(run.path.absolute(), run.at_step), choose_precision(options.precision)
    weights = there.weights_file()
    Sampler(there, kept_in)  # builds what is kept beside the run, so that the workers need not
    task = SamplingTask(there, weights, file_sha256(weights), kept_in, sampling, _versions())
    with (
        ray_connection(options.ray_address, None, without_ray=_WORDS.without_ray) as ray,
        closing(_pool(ray, task)) as pool,
    ):

        def write(prompts: Sequence[str], seed: int) -> Generator[str]:
            blocks = Sampler(there, kept_in).cut(prompts, options.block_size, seed)
            with closing(pool.results(blocks)) as made:
                yield from texts_in_order(blocks, made)

        yield write


def _pool(ray: Any, task: SamplingTask) -> RayPool[Block, list[str]]:
    actor = ray.remote(num_cpus=1, max_restarts=0)(RaySampler)
    count = max(1, min(BLOCKS_AT_ONCE, int(ray.cluster_resources().get("CPU", 0))))
    return RayPool(ray, lambda: actor.remote(task), count, _WORDS, jobs_per_worker=1)


class RaySampler(RayWorker[Block, list[str]]):
    """A Sampler as ray's actor."""

    def __init__(self, task: SamplingTask) -> None:
        self._task = task
        self.made_with = task.made_with

    def versions(self) -> dict[str, str]:
        return _versions()

    def load(self) -> None:
        task, weights = self._task, self._task.weights
        if not weights.exists():
            raise InputError(f"{weights}: No such file or directory; all nodes must share the folder of the run")
        found = file_sha256(weights)
        if found != task.weights_sha256:
            raise InputError(f"{weights}: is another one than here; all nodes must share the folder of the run")
        self._sampler = Sampler(task.run, task.precision)

    def work(self, block: Block) -> list[str]:
        return list(self._sampler.continued(block.prompts, self._task.sampling, block.seed))


def _versions() -> dict[str, str]:
    return {"redditgen": __version__, "ctranslate2": version("ctranslate2")}
