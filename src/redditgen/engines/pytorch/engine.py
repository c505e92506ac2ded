"""The torch engine: trains with PyTorch and samples with CTranslate2, on gpt-2-simple's directories."""

import logging
import sys
from importlib import import_module

from redditgen.engines.base import TrainingJob
from redditgen.engines.pytorch import ray_training
from redditgen.engines.pytorch.finetuning import TorchFinetuning
from redditgen.runtime.signals import deferred_signals, signals_raise_keyboard_interrupt

# Of 10 s together on a slow core.
_SLOW_IMPORTS = ("torch", "transformers", "transformers.modeling_utils", "transformers.models.gpt2.modeling_gpt2")

_log = logging.getLogger(__name__)


def finetune(job: TrainingJob) -> int:
    """Train a run to the end of its schedule, or until something ends it before, save it, and return the step reached.

    Raises Interrupted, with the run saved, on Ctrl-C or SIGTERM, and RedditgenError, with the last good checkpoint
    kept, where the loss goes up for good or is no number.
    """
    with signals_raise_keyboard_interrupt():
        if job.ray_workers:
            return ray_training.finetune_with_ray(job, job.ray_workers)
        _load_libraries()
        return TorchFinetuning(job).run()


def _load_libraries() -> None:
    """Import what takes long, interrupted only in between: C++ that is being loaded aborts where a signal raises."""
    with deferred_signals() as interrupted:
        for name in _SLOW_IMPORTS:
            if name == "torch" and name not in sys.modules:
                _log.info("loading PyTorch")
            import_module(name)
            if interrupted():
                raise KeyboardInterrupt
