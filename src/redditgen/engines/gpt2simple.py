"""The gpt-2-simple engine: the report's own stack, TensorFlow 1.15 in a Python 3.7, a process of its own for each call.

Tokens go to the worker and come back from it; text stays here, so that a run's record tokens are what they are in the
torch engine.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from functools import partial
from typing import Any

from redditgen import tf1
from redditgen.engines import Job, Write
from redditgen.engines.gpt2simple_finetuning import Finetuning
from redditgen.engines.worker_process import LOG, Worker, put_model, scratch
from redditgen.gpt2.examples import longest_prompt, prompt_ids
from redditgen.gpt2.rundir import ModelDir
from redditgen.gpt2.sampling import block_size, through_end
from redditgen.gpt2.tokenizer import Tokenizer
from redditgen.settings import FinetuneSettings, GenerateSettings


def finetune(settings: FinetuneSettings, job: Job) -> int:
    """Train a run to `job.end` and save it; gives the step reached.

    Raises Interrupted, with the run saved, on Ctrl-C or SIGTERM.
    """
    return Finetuning(settings, job).run()


def writing(settings: GenerateSettings, run: ModelDir) -> AbstractContextManager[Write]:
    return nullcontext(partial(generate, settings, run))


def generate(settings: GenerateSettings, run: ModelDir, prompts: Sequence[str], seed: int) -> Generator[str]:
    """The text of each prompt, in order, made in blocks."""
    if not prompts:
        return
    tokenizer = run.tokenizer()
    job = _job(settings, run, tokenizer, prompts) | {"seed": seed}
    python = tf1.find(settings.tf1_python)
    with scratch() as folder:
        put_model(run, folder)
        with Worker(python, folder, run.path / LOG, job) as worker:
            # The texts first: so they are asked for one more, and that comes when the worker has ended.
            for tokens, prompt in zip(_in_order(worker), prompts, strict=False):
                yield prompt + through_end(tokenizer.decode(tokens))
            worker.check()


def _job(settings: GenerateSettings, run: ModelDir, tokenizer: Tokenizer, prompts: Sequence[str]) -> dict[str, Any]:
    hparams = run.hparams()
    ids = prompt_ids(list(prompts), tokenizer, run.mark().record_tokens)
    longest_prompt(ids, prompts, hparams.n_ctx)
    return {
        "command": "generate",
        "hparams": asdict(hparams),
        "prompts": ids,
        "length": settings.length,
        "temperature": settings.temperature,
        "top_k": settings.top_k,
        "top_p": settings.top_p,
        "batch_size": block_size(settings.batch_size, hparams, settings.length),
        "if_memory_is_short": "lower --batch-size or --length",
    }


def _in_order(worker: Worker) -> Iterator[list[int]]:
    """The tokens of one text after another; the worker takes prompts of one length together."""
    waiting: dict[int, list[int]] = {}
    place = 0
    for event in worker.events():
        waiting |= {index: tokens for index, *tokens in (event or {}).get("texts", ())}
        while place in waiting:
            yield waiting.pop(place)
            place += 1
