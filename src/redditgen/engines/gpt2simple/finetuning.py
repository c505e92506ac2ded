"""Finetuning with gpt-2-simple: a worker process trains and reports events, and this process updates the run.

Each event is handled as it arrives: a step's loss and held-out loss go into the metrics, a saved checkpoint is moved
into the run's folder, and samples are moved into the folder of samples. The run is unchanged until the first step.
"""

import logging
import shutil
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from redditgen.engines.base import TrainingJob, default_learning_rate, interrupted_error
from redditgen.engines.data.examples import DynamicExamples, Examples, tokenize_prompts
from redditgen.engines.data.token_stream import TokenStream
from redditgen.engines.gpt2simple import tf1_environment
from redditgen.engines.gpt2simple.worker_process import LOG_FILE, WorkerProcess, link_model, worker_folder
from redditgen.errors import InputError, Interrupted, UsageError
from redditgen.files.atomic import atomic_write, make_folder
from redditgen.gpt2.metrics import MetricsFile, Report
from redditgen.gpt2.run_info import COMPACT_TOKENS
from redditgen.gpt2.tokenizer import Tokenizer
from redditgen.runtime.progress import Progress
from redditgen.runtime.signals import deferred_signals
from redditgen.titles.record import END_TOKEN, START_TOKEN

if TYPE_CHECKING:
    from numpy.typing import NDArray

DEFAULT_BATCH_SIZE, DEFAULT_ACCUMULATION = 1, 5  # windows per batch, and batches per step: gpt-2-simple's defaults

_log = logging.getLogger(__name__)


class Gpt2SimpleFinetuning:
    """Trains one run in a worker process, and writes its checkpoints, measurements and samples."""

    def __init__(self, job: TrainingJob) -> None:
        self.job, self.run_info = job, job.dataset.run_info
        self.hyperparameters, self.tokenizer = job.initial_model.hyperparameters(), job.initial_model.tokenizer()
        self.options = _options(job, default_learning_rate(self.hyperparameters))
        self.window = min(job.optimizer.window, self.hyperparameters.n_ctx)
        if isinstance(job.dataset.train, DynamicExamples):
            _log.warning("%s: gpt-2-simple draws the keywords once, not anew every epoch", job.dataset.source)
        self.stream = _training_stream(job.dataset.train, self.run_info.record_tokens, self.tokenizer)
        if not self.stream.window_count(self.window):
            raise InputError(
                f"{job.dataset.source}: has {self.stream.tokens} tokens to train on, and a window {self.window}; "
                "lower --window, or give more titles"
            )
        self.python = tf1_environment.find_python(job.tf1_python)
        self.metrics = MetricsFile(job.run.path / "metrics.jsonl")
        self.before: list[Report] = []  # reports before the first step
        self.losses: list[float] = []  # one per step since the last report
        self.step = self.start = job.schedule.start
        self.end = job.schedule.end
        self.started = time.monotonic()

    def run(self) -> int:
        """Train to the last step and return it; raises Interrupted where asked to stop before."""
        run, start, end = self.job.run, self.start, self.end
        make_folder(run.path)
        with ExitStack() as stack:
            interrupted = stack.enter_context(deferred_signals())
            folder = stack.enter_context(worker_folder(run.path))
            job = self._write_inputs(folder)
            self.progress = stack.enter_context(Progress(run.path.name, unit="steps", total=end, done=start))
            stack.callback(self._keep_summaries, folder)
            worker = stack.enter_context(WorkerProcess(self.python, folder, run.path / LOG_FILE, job))
            for event in worker.events():
                if event:
                    self._handle_event(event, folder)
                if interrupted():
                    self._stop(worker)
            worker.check()
            if self.losses:
                self._report(None)
            if interrupted():
                raise interrupted_error(self.step, self.job)
        return end

    def _write_inputs(self, folder: Path) -> dict[str, Any]:
        """Write the files that the worker reads into its folder; return its job."""
        samples, held_out = self.job.samples, self.job.dataset.held_out
        link_model(self.job.initial_model, folder)
        sequences = held_out.sequences
        _save_arrays(folder / "tokens.npz", {f"arr_{number}": chunk for number, chunk in enumerate(self.stream.chunks)})
        _save_arrays(
            folder / "held_out.npz",
            {
                "ids": sequences.ids,
                "starts": sequences.starts,
                "title_starts": held_out.title_starts,
                "title_ends": held_out.title_ends,
                "title_chars": held_out.title_chars,
            },
        )
        [opening] = tokenize_prompts([self.run_info.opening_prompt()], self.tokenizer, self.run_info.record_tokens)
        length = min(samples.length, self.hyperparameters.n_ctx - len(opening))
        return {
            "command": "finetune",
            "hparams": asdict(self.hyperparameters),
            "opening": opening,
            "start": self.start,
            "end": self.end,
            "window": self.window,
            "seed": self.job.optimizer.seed,
            "val_every": self.job.schedule.val_every,
            "options": self.options | {"sample_length": length},
            "if_memory_is_short": "lower --window or --batch-size, or pass --memory-saving-gradients",
        }

    def _handle_event(self, event: dict[str, Any], folder: Path) -> None:
        """Update the run after an event of the worker."""
        match event:
            case {"step": 0, "val": val}:
                self._report(val)
            case {"step": int(step), "loss": float(loss), "val": val}:
                self._record_step(step, loss, val)
            case {"saved": int(step)}:
                files = (folder / "checkpoint/run").glob(f"model-{step}.*")
                self.job.run.adopt_checkpoint(step, files, keep=self.job.checkpoints.max_checkpoints)
            case {"sampled": int(step)} if step > self.start:
                self._write_samples(step, folder)

    def _record_step(self, step: int, loss: float, val: list[float] | None) -> None:
        """Record the loss of a step, and `val` (see `_report`) where the worker has measured."""
        if self.step == self.start:
            self._start_run()
        self.step = step
        self.losses.append(loss)
        self.progress.update(1, f"loss {loss:.3f}")
        every = self.job.schedule.print_every
        if val or step == self.end or (every > 0 and step % every == 0):
            self._report(val)

    def _start_run(self) -> None:
        """Change the run for the first time, once a step is done; an earlier failure leaves the run as it was."""
        run = self.job.run
        if not self.start:
            run.clear_run()
        run.start_run(self.job.initial_model, self.run_info)
        self.job.on_first_change()
        self.metrics.delete_after(self.start)
        for report in self.before:
            self.metrics.add(report)

    def _report(self, val: list[float] | None) -> None:
        """Log and save a report of the current step.

        `val` is the held-out loss in nats per token, and in bits per character of the titles; None where not measured.
        """
        tokens_per_step = self.options["batch_size"] * self.options["accumulate_gradients"] * (self.window - 1)
        report = Report(
            step=self.step,
            loss=sum(self.losses) / len(self.losses) if self.losses else None,
            val_loss=val[0] if val else None,
            val_bits_per_char=val[1] if val else None,
            tokens=(self.step - self.start) * tokens_per_step,
            seconds=round(time.monotonic() - self.started, 3),
            lr=self.options["learning_rate"],
        )
        self.losses = []
        _log.info("%s", report)
        if self.step > self.start:
            self.metrics.add(report)
        else:
            self.before.append(report)

    def _write_samples(self, step: int, folder: Path) -> None:
        """Copy the samples to `<sample_dir>/<run>/samples-<step>`; gpt-2-simple numbers them one step higher."""
        text = (folder / f"samples/run/samples-{step + 1}").read_text(encoding="utf8")
        if self.run_info.record_tokens == COMPACT_TOKENS:
            # Compact records begin and end with the same token; the first of two is shown as the start token.
            text = text.replace(f"=\n{END_TOKEN}", f"=\n{START_TOKEN}").replace(
                END_TOKEN + END_TOKEN, END_TOKEN + START_TOKEN
            )
        with atomic_write(self.job.samples.folder / self.job.run.path.name / f"samples-{step}") as temporary:
            temporary.write_text(text, encoding="utf8")
        _log.info("%s", text.rstrip("\n"))

    def _stop(self, worker: WorkerProcess) -> None:
        """Ask the worker to save and end; raises Interrupted where no step is done yet."""
        if self.step == self.start:
            raise Interrupted(f"{self.job.run.path}: stopped before a step was done; nothing has changed")
        worker.ask_to_stop()

    def _keep_summaries(self, folder: Path) -> None:
        """Move TensorBoard's files to the run, if a step was done."""
        if self.step > self.start:
            for file in (folder / "checkpoint/run").glob("events.*"):
                shutil.move(file, self.job.run.path / file.name)


def _options(job: TrainingJob, default_rate: float) -> dict[str, Any]:
    """Return the arguments of gpt_2.finetune; raises UsageError for options that it lacks."""
    optimizer = job.optimizer
    saves_memory = job.plan.memory_saving_gradients
    accumulated = optimizer.accumulate_gradients or (1 if saves_memory else DEFAULT_ACCUMULATION)
    if saves_memory and accumulated > 1:
        raise UsageError(
            "--memory-saving-gradients: gpt-2-simple has them only with --accumulate-gradients 1; leave one of them out"
        )
    if job.plan.precision in ("bfloat16", "float16"):
        raise UsageError("--precision: gpt-2-simple computes in float32 alone; leave it out")
    return {
        "batch_size": optimizer.batch_size or DEFAULT_BATCH_SIZE,
        "accumulate_gradients": accumulated,
        "learning_rate": optimizer.learning_rate or default_rate,
        "optimizer": optimizer.name,
        "use_memory_saving_gradients": saves_memory,
        "only_train_transformer_layers": job.plan.train == "layers",
        "sample_every": job.samples.every,
        "sample_num": job.samples.number,
        "save_every": job.checkpoints.save_every,
        "print_every": job.schedule.print_every,
    }


def _training_stream(
    train: Examples | DynamicExamples | TokenStream, record_tokens: str, tokenizer: Tokenizer
) -> TokenStream:
    """Return the tokens to cut windows from: those of all records, one after another.

    Literal records are separated by line breaks, as in an encoded file.
    """
    if isinstance(train, TokenStream):
        return train
    sequences = train.pool(0, np.arange(len(train))).sequences
    ids, starts = sequences.ids, sequences.starts
    if record_tokens == COMPACT_TOKENS:
        return TokenStream((ids,))
    [line_break] = tokenizer.encode(["\n"])[0].ids
    return TokenStream((np.insert(ids, starts[1:], line_break),))


def _save_arrays(path: Path, arrays: dict[str, "NDArray[Any]"]) -> None:
    try:
        np.savez(path, allow_pickle=False, **arrays)
    except OSError as error:
        raise InputError(f"{path}: can't be written: {error.strerror or error}") from error
