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
from redditgen.engines import BLOCKS_AT_ONCE, Write
from redditgen.errors import InputError
from redditgen.gpt2.rundir import ModelDir
from redditgen.gpt2.sampling import Block, Sampler, Sampling, block_size, in_order, precision
from redditgen.output import sha256
from redditgen.ray_cluster import connected
from redditgen.ray_pool import Pool, Words, Worker
from redditgen.settings import GenerateSettings

_WORDS = Words[Block](
    otherwise="leaving --ray-address out",
    awaited="CPUs of the ray cluster that others leave free, and for the workers to start there",
    job=lambda block: f"a block of {len(block.prompts)} prompts",
    if_it_kills="a smaller --batch-size takes less memory",
)


@dataclass(frozen=True)
class Task:
    """What a worker shall write with, and how it knows that it has the very same."""

    run: ModelDir
    weights: Path
    weights_sha256: str
    precision: str
    how: Sampling
    made_with: dict[str, str]


@contextmanager
def writing(settings: GenerateSettings, run: ModelDir, how: Sampling) -> Iterator[Write]:
    """Inside the block workers write. Their nodes need the run's folder at the same path."""
    there, kept_in = ModelDir(run.path.absolute(), run.at_step), precision(settings.precision)
    size = block_size(settings.batch_size, there.hparams(), settings.length)
    weights = there.weights()
    Sampler(there, kept_in)  # builds what is kept beside the run, so that the workers need not
    task = Task(there, weights, sha256(weights), kept_in, how, _versions())
    with connected(settings.ray_address, None, otherwise=_WORDS.otherwise) as ray, closing(_pool(ray, task)) as pool:

        def write(prompts: Sequence[str], seed: int) -> Generator[str]:
            blocks = Sampler(there, kept_in).cut(prompts, size, seed)
            with closing(pool.done(blocks)) as made:
                yield from in_order(blocks, made)

        yield write


def _pool(ray: Any, task: Task) -> Pool[Block, list[str]]:
    actor = ray.remote(num_cpus=1, max_restarts=0)(RayWriter)
    count = max(1, min(BLOCKS_AT_ONCE, int(ray.cluster_resources().get("CPU", 0))))
    return Pool(ray, lambda: actor.remote(task), count, _WORDS, at_hand=1)


class RayWriter(Worker[Block, list[str]]):
    """A Sampler as ray's actor."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self.made_with = task.made_with

    def versions(self) -> dict[str, str]:
        return _versions()

    def load(self) -> None:
        task, weights = self._task, self._task.weights
        if not weights.exists():
            raise InputError(f"{weights}: No such file or directory; all nodes must share the folder of the run")
        found = sha256(weights)
        if found != task.weights_sha256:
            raise InputError(f"{weights}: is another one than here; all nodes must share the folder of the run")
        self._sampler = Sampler(task.run, task.precision)

    def work(self, block: Block) -> list[str]:
        return list(self._sampler.continued(block.prompts, self._task.how, block.seed))


def _versions() -> dict[str, str]:
    return {"redditgen": __version__, "ctranslate2": version("ctranslate2")}
