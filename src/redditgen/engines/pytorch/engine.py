"""The torch engine's `finetune`: it trains with PyTorch, on model directories in gpt-2-simple's layout."""

import logging
import sys
from importlib import import_module

from redditgen.engines.base import TrainingJob
from redditgen.engines.pytorch import ray_training
from redditgen.engines.pytorch.finetuning import TorchFinetuning
from redditgen.runtime.signals import deferred_signals, signals_raise_keyboard_interrupt

# Together they take 10 s to import on a slow core.
_SLOW_IMPORTS = ("torch", "transformers", "transformers.modeling_utils", "transformers.models.gpt2.modeling_gpt2")

_log = logging.getLogger(__name__)


def finetune(job: TrainingJob) -> int:
    """Train a run to the end of its schedule, its deadline or its early stop; save it and return the step reached.

    Raises Interrupted, with the run saved, on Ctrl-C or SIGTERM, and RedditgenError, with the last good checkpoint
    kept, where the loss diverges or is infinite or NaN. Raises InputError where the training does not fit the memory.
    """
    with signals_raise_keyboard_interrupt():
        if job.ray_workers:
            return ray_training.finetune_with_ray(job, job.ray_workers)
        _load_libraries()
        return TorchFinetuning(job).run()


def _load_libraries() -> None:
    """Import the slow libraries, and raise KeyboardInterrupt only between two of them.

    A library whose C++ code is being loaded aborts the process where a signal handler raises.
    """
    with deferred_signals() as interrupted:
        for name in _SLOW_IMPORTS:
            if name == "torch" and name not in sys.modules:
                _log.info("loading PyTorch")
            import_module(name)
            if interrupted():
                raise KeyboardInterrupt
