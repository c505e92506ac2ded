"""The sampling half of the default engine: CTranslate2 on the CPU, in this process or on ray workers."""

from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from functools import partial

from redditgen.engines.base import SamplerOptions, Sampling, WriteTexts
from redditgen.engines.ctranslate2 import ray_sampling
from redditgen.engines.ctranslate2.sampler import Sampler, choose_precision
from redditgen.gpt2.model_dir import ModelDir


def open_writer(run: ModelDir, sampling: Sampling, options: SamplerOptions) -> AbstractContextManager[WriteTexts]:
    """Return a context manager that yields a function from prompts to texts, on a ray cluster where one is given."""
    if options.ray_address:
        return ray_sampling.open_ray_writer(run, sampling, options)
    return nullcontext(partial(write_texts, run, sampling, options))


def write_texts(
    run: ModelDir, sampling: Sampling, options: SamplerOptions, prompts: Sequence[str], seed: int
) -> Generator[str]:
    """Sample blocks of prompts in this process; yield the text of each prompt, in order."""
    sampler = Sampler(run, choose_precision(options.precision))
    with closing(sampler.sample(prompts, options.block_size, sampling, seed)) as texts:
        yield from texts
