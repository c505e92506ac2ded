"""The gpt-2-simple engine: the original report's software, TensorFlow 1.15 under Python 3.7, in a process per call.

The worker process is sent token ids and returns token ids. Text is tokenized and decoded in this process, so a run's
records become the same tokens as in the torch engine.
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
    """Train a run to the last step of its schedule, save it, and return that step.

    Raises Interrupted on Ctrl-C or SIGTERM, after the run was saved; UsageError for an option that gpt-2-simple lacks;
    RedditgenError where the worker fails.
    """
    return Gpt2SimpleFinetuning(job).run()


def open_writer(run: ModelDir, sampling: Sampling, options: SamplerOptions) -> AbstractContextManager[WriteTexts]:
    """Return a context manager that yields a function from prompts to texts; each call starts a worker process."""
    return nullcontext(partial(write_texts, run, sampling, options))


def write_texts(
    run: ModelDir, sampling: Sampling, options: SamplerOptions, prompts: Sequence[str], seed: int
) -> Generator[str]:
    """Sample blocks of prompts in a worker process; yield the text of each prompt, in order."""
    if not prompts:
        return
    tokenizer = run.tokenizer()
    job = _generate_job(run, sampling, options, tokenizer, prompts) | {"seed": seed}
    python = tf1_environment.find_python(options.tf1_python)
    with worker_folder() as folder:
        link_model(run, folder)
        with WorkerProcess(python, folder, run.path / LOG_FILE, job) as worker:
            # The tokens come first, so that zip asks for one more text after the last prompt. That request returns when
            # the worker has ended.
            for tokens, prompt in zip(_tokens_in_order(worker), prompts, strict=False):
                yield prompt + cut_after_end_token(tokenizer.decode(tokens))
            worker.check()


def _generate_job(
    run: ModelDir, sampling: Sampling, options: SamplerOptions, tokenizer: Tokenizer, prompts: Sequence[str]
) -> dict[str, Any]:
    """Return the job for the worker, without the seed; raises UsageError for a prompt that is too long."""
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


def _tokens_in_order(worker: WorkerProcess) -> Iterator[list[int]]:
    """Yield the tokens of each text in the order of the prompts; the worker groups prompts by length."""
    waiting: dict[int, list[int]] = {}
    next_index = 0
    for event in worker.events():
        waiting |= {index: tokens for index, *tokens in (event or {}).get("texts", ())}
        while next_index in waiting:
            yield waiting.pop(next_index)
            next_index += 1
