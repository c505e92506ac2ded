"""The torch engine: trains with PyTorch and samples with CTranslate2, on gpt-2-simple's directories."""

import logging
import sys
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from functools import partial
from importlib import import_module

from redditgen.engines import Job, Write, ray_finetuning, ray_generating
from redditgen.engines.torch_finetuning import Finetuning
from redditgen.gpt2.rundir import ModelDir
from redditgen.gpt2.sampling import Sampler, Sampling, block_size, precision
from redditgen.interrupts import ended_like_ctrl_c, held_back
from redditgen.settings import FinetuneSettings, GenerateSettings

# Of 10 s together on a slow core.
_SLOW_IMPORTS = ("torch", "transformers", "transformers.modeling_utils", "transformers.models.gpt2.modeling_gpt2")

_log = logging.getLogger(__name__)


def finetune(settings: FinetuneSettings, job: Job) -> int:
    """Train a run to `job.end`, or until the settings end it before, and save it; gives the step reached.

    Raises Interrupted, with the run saved, on Ctrl-C or SIGTERM, and RedditgenError, with the last good checkpoint
    kept, where the loss goes up for good or is no number.
    """
    with ended_like_ctrl_c():
        if settings.has_workers:
            return ray_finetuning.finetune(settings, job)
        _load_libraries()
        return Finetuning(settings, job).run()


def _load_libraries() -> None:
    """Import what takes long, interrupted only in between: C++ that is being loaded aborts where a signal raises."""
    with held_back() as interrupted:
        for name in _SLOW_IMPORTS:
            if name == "torch" and name not in sys.modules:
                _log.info("loading PyTorch")
            import_module(name)
            if interrupted():
                raise KeyboardInterrupt


def writing(settings: GenerateSettings, run: ModelDir) -> AbstractContextManager[Write]:
    """Opens ray where its workers shall write."""
    if settings.ray_address:
        return ray_generating.writing(settings, run, _how(settings))
    return nullcontext(partial(generate, settings, run))


def generate(settings: GenerateSettings, run: ModelDir, prompts: Sequence[str], seed: int) -> Generator[str]:
    """The text of each prompt, in order, made here in blocks."""
    size = block_size(settings.batch_size, run.hparams(), settings.length)
    sampler = Sampler(run, precision(settings.precision))
    with closing(sampler.blocks(prompts, size, _how(settings), seed)) as texts:
        yield from texts


def _how(settings: GenerateSettings) -> Sampling:
    return Sampling(
        temperature=settings.temperature,
        top_k=settings.top_k,
        top_p=settings.top_p,
        length=settings.length,
        repetition_penalty=settings.repetition_penalty,
    )
