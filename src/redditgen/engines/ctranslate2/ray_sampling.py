"""Samples blocks of prompts on the workers of a ray cluster, one block at a time on each worker.

The texts are those that a single process samples, as long as all CPUs are of one kind: CTranslate2's int8 rounds
differently on each instruction set. In float32 no title differed.
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

_MESSAGES = PoolMessages[Block](
    without_ray="leaving --ray-address out",
    waiting_for="CPUs of the ray cluster that others leave free, and for the workers to start there",
    job=lambda block: f"a block of {len(block.prompts)} prompts",
    remedy="a smaller --batch-size takes less memory",
)


@dataclass(frozen=True)
class SamplingTask:
    """The run, options and versions with which a worker samples.

    `weights` is the file whose hash identifies the weights, and `package_versions` holds the versions of the packages
    that the texts depend on. A worker that finds another hash or version refuses to work.
    """

    run: ModelDir
    weights: Path
    weights_sha256: str
    precision: str
    sampling: Sampling
    package_versions: dict[str, str]


@contextmanager
def open_ray_writer(run: ModelDir, sampling: Sampling, options: SamplerOptions) -> Iterator[WriteTexts]:
    """Yield a function from prompts to texts, which ray workers sample; the workers end with the block.

    All nodes need the run's folder at the same path. Raises InputError where a node has other weights there.
    """
    model, precision = ModelDir(run.path.absolute(), run.at_step), choose_precision(options.precision)
    weights = model.weights_file()
    Sampler(model, precision)  # builds the CTranslate2 model in the run's folder, so that the workers need not
    task = SamplingTask(model, weights, file_sha256(weights), precision, sampling, _versions())
    with (
        ray_connection(options.ray_address, None, without_ray=_MESSAGES.without_ray) as ray,
        closing(_start_pool(ray, task)) as pool,
    ):

        def write(prompts: Sequence[str], seed: int) -> Generator[str]:
            blocks = Sampler(model, precision).split_into_blocks(prompts, options.block_size, seed)
            with closing(pool.results(blocks)) as results:
                yield from texts_in_order(blocks, results)

        yield write


def _start_pool(ray: Any, task: SamplingTask) -> RayPool[Block, list[str]]:
    actor = ray.remote(num_cpus=1, max_restarts=0)(RaySampler)
    count = max(1, min(BLOCKS_AT_ONCE, int(ray.cluster_resources().get("CPU", 0))))
    return RayPool(ray, lambda: actor.remote(task), count, _MESSAGES, jobs_per_worker=1)


class RaySampler(RayWorker[Block, list[str]]):
    """A ray actor that samples blocks of prompts."""

    def __init__(self, task: SamplingTask) -> None:
        self._task = task
        self.package_versions = task.package_versions

    def versions(self) -> dict[str, str]:
        return _versions()

    def load(self) -> None:
        task, weights = self._task, self._task.weights
        if not weights.exists():
            raise InputError(f"{weights}: No such file or directory; all nodes must share the folder of the run")
        sha256 = file_sha256(weights)
        if sha256 != task.weights_sha256:
            raise InputError(f"{weights}: is another one than here; all nodes must share the folder of the run")
        self._sampler = Sampler(task.run, task.precision)

    def work(self, block: Block) -> list[str]:
        return list(self._sampler.sample_block(block.prompts, self._task.sampling, block.seed))


def _versions() -> dict[str, str]:
    return {"redditgen": __version__, "ctranslate2": version("ctranslate2")}
