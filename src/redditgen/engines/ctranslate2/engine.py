"""The sampling half of the default engine: CTranslate2 on the CPU, here or on the workers of a ray cluster."""

from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from functools import partial

from redditgen.engines.base import SamplerOptions, Sampling, WriteTexts
from redditgen.engines.ctranslate2 import ray_sampling
from redditgen.engines.ctranslate2.sampler import Sampler, choose_precision
from redditgen.gpt2.model_dir import ModelDir


def open_writer(run: ModelDir, sampling: Sampling, options: SamplerOptions) -> AbstractContextManager[WriteTexts]:
    """A context that yields a function from prompts to texts; with a ray address it connects to that cluster."""
    if options.ray_address:
        return ray_sampling.open_ray_writer(run, sampling, options)
    return nullcontext(partial(write_texts, run, sampling, options))


def write_texts(
    run: ModelDir, sampling: Sampling, options: SamplerOptions, prompts: Sequence[str], seed: int
) -> Generator[str]:
    """Yield the text of each prompt, in order; this process samples them in blocks."""
    sampler = Sampler(run, choose_precision(options.precision))
    with closing(sampler.blocks(prompts, options.block_size, sampling, seed)) as texts:
        yield from texts
