"""The gpt-2-simple engine: the report's own stack, TensorFlow 1.15 in a Python 3.7, a process of its own for each call.

Tokens go to the worker and come back from it; text stays here, so that a run's record tokens are what they are in the
torch engine.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from functools import partial
from typing import Any

from redditgen.engines.base import SamplerOptions, Sampling, TrainingJob, WriteTexts, cut_after_end_token
from redditgen.engines.data.examples import longest_prompt_length, tokenize_prompts
from redditgen.engines.gpt2simple import tf1_environment
from redditgen.engines.gpt2simple.finetuning import Gpt2SimpleFinetuning
from redditgen.engines.gpt2simple.worker_process import LOG_FILE, WorkerProcess, link_model, worker_folder
from redditgen.gpt2.model_dir import ModelDir
from redditgen.gpt2.tokenizer import Tokenizer


def finetune(job: TrainingJob) -> int:
    """Train a run to the last step of its schedule and save it; gives the step reached.

    Raises Interrupted, with the run saved, on Ctrl-C or SIGTERM.
    """
    return Gpt2SimpleFinetuning(job).run()


def open_writer(run: ModelDir, sampling: Sampling, options: SamplerOptions) -> AbstractContextManager[WriteTexts]:
    """A context that yields a function from prompts to texts; each call starts a worker process."""
    return nullcontext(partial(write_texts, run, sampling, options))


def write_texts(
    run: ModelDir, sampling: Sampling, options: SamplerOptions, prompts: Sequence[str], seed: int
) -> Generator[str]:
    """The text of each prompt, in order, made in blocks."""
    if not prompts:
        return
    tokenizer = run.tokenizer()
    job = _job(run, sampling, options, tokenizer, prompts) | {"seed": seed}
    python = tf1_environment.find_python(options.tf1_python)
    with worker_folder() as folder:
        link_model(run, folder)
        with WorkerProcess(python, folder, run.path / LOG_FILE, job) as worker:
            # The texts first: so they are asked for one more, and that comes when the worker has ended.
            for tokens, prompt in zip(_in_order(worker), prompts, strict=False):
                yield prompt + cut_after_end_token(tokenizer.decode(tokens))
            worker.check()


def _job(
    run: ModelDir, sampling: Sampling, options: SamplerOptions, tokenizer: Tokenizer, prompts: Sequence[str]
) -> dict[str, Any]:
    hyperparameters = run.hyperparameters()
    ids = tokenize_prompts(list(prompts), tokenizer, run.run_info().record_tokens)
    longest_prompt_length(ids, prompts, hyperparameters.n_ctx)
    return {
        "command": "generate",
        "hparams": asdict(hyperparameters),
        "prompts": ids,
        "length": sampling.length,
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "batch_size": options.block_size,
        "if_memory_is_short": "lower --batch-size or --length",
    }


def _in_order(worker: WorkerProcess) -> Iterator[list[int]]:
    """The tokens of one text after another; the worker takes prompts of one length together."""
    waiting: dict[int, list[int]] = {}
    place = 0
    for event in worker.events():
        waiting |= {index: tokens for index, *tokens in (event or {}).get("texts", ())}
        while place in waiting:
            yield waiting.pop(place)
            place += 1
