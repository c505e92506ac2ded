"""A finetuning by gpt-2-simple: the worker trains and says what happens, this side writes it to the run's folder."""

import logging
import shutil
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from redditgen import tf1
from redditgen.engines import Job, interrupted_at
from redditgen.engines.worker_process import LOG, Worker, put_model, scratch
from redditgen.errors import InputError, Interrupted, UsageError
from redditgen.gpt2.examples import DynamicExamples, Examples, prompt_ids
from redditgen.gpt2.mark import COMPACT
from redditgen.gpt2.metrics import Metrics, Report
from redditgen.gpt2.tokenizer import Tokenizer
from redditgen.gpt2.training import default_learning_rate
from redditgen.gpt2.windows import Stream
from redditgen.interrupts import held_back
from redditgen.markup import END, START
from redditgen.output import make_folder, whole
from redditgen.progress import Progress
from redditgen.settings import FinetuneSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

BATCH_SIZE, ACCUMULATED = 1, 5  # windows, and batches a step: gpt-2-simple's own

_log = logging.getLogger(__name__)


class Finetuning:
    """One command's training of one run, and what it writes on the way."""

    def __init__(self, settings: FinetuneSettings, job: Job) -> None:
        self.settings, self.job, self.mark = settings, job, job.dataset.mark
        self.hparams, self.tokenizer = job.weights.hparams(), job.weights.tokenizer()
        self.options = _options(settings, default_learning_rate(self.hparams))
        self.window = min(settings.window, self.hparams.n_ctx)
        if isinstance(job.dataset.train, DynamicExamples):
            _log.warning("%s: gpt-2-simple draws the keywords once, not anew every epoch", settings.dataset)
        self.stream = _stream(job.dataset.train, self.mark.record_tokens, self.tokenizer)
        if not self.stream.places(self.window):
            raise InputError(
                f"{settings.dataset}: has {self.stream.tokens} tokens to train on, and a window {self.window}; "
                "lower --window, or give more titles"
            )
        self.python = tf1.find(settings.tf1_python)
        self.metrics = Metrics(job.run.path / "metrics.jsonl")
        self.before: list[Report] = []  # reports of what was measured before the first step
        self.losses: list[float] = []  # of the steps since the last report
        self.step = job.start
        self.started = time.monotonic()

    def run(self) -> int:
        run, start, end = self.job.run, self.job.start, self.job.end
        make_folder(run.path)
        with ExitStack() as stack:
            interrupted = stack.enter_context(held_back())
            folder = stack.enter_context(scratch(run.path))
            job = self._put_into(folder)
            self.progress = stack.enter_context(Progress(run.path.name, unit="steps", total=end, done=start))
            stack.callback(self._keep_summaries, folder)
            worker = stack.enter_context(Worker(self.python, folder, run.path / LOG, job))
            for event in worker.events():
                if event:
                    self._take(event, folder)
                if interrupted():
                    self._stop(worker)
            worker.check()
            if self.losses:
                self._report(None)
            if interrupted():
                raise interrupted_at(self.step, self.job, self.settings)
        return end

    def _put_into(self, folder: Path) -> dict[str, Any]:
        """Everything that the worker needs, and the job that says what to do with it."""
        settings, held_out = self.settings, self.job.dataset.held_out
        put_model(self.job.weights, folder)
        sequences = held_out.sequences
        _save(folder / "tokens.npz", {f"arr_{number}": chunk for number, chunk in enumerate(self.stream.chunks)})
        _save(
            folder / "held_out.npz",
            {
                "ids": sequences.ids,
                "starts": sequences.starts,
                "title_starts": held_out.title_starts,
                "title_ends": held_out.title_ends,
                "title_chars": held_out.title_chars,
            },
        )
        [opening] = prompt_ids([self.mark.opening()], self.tokenizer, self.mark.record_tokens)
        length = min(settings.sample_length, self.hparams.n_ctx - len(opening))
        return {
            "command": "finetune",
            "hparams": asdict(self.hparams),
            "opening": opening,
            "start": self.job.start,
            "end": self.job.end,
            "window": self.window,
            "seed": settings.seed,
            "val_every": settings.val_every,
            "options": self.options | {"sample_length": length},
            "if_memory_is_short": "lower --window or --batch-size, or pass --memory-saving-gradients",
        }

    def _take(self, event: dict[str, Any], folder: Path) -> None:
        match event:
            case {"step": 0, "val": val}:
                self._report(val)
            case {"step": int(step), "loss": float(loss), "val": val}:
                self._has_learned(step, loss, val)
            case {"saved": int(step)}:
                files = (folder / "checkpoint/run").glob(f"model-{step}.*")
                self.job.run.move_step(step, files, keep=self.settings.max_checkpoints)
            case {"sampled": int(step)} if step > self.job.start:
                self._write_samples(step, folder)

    def _has_learned(self, step: int, loss: float, val: list[float] | None) -> None:
        if self.step == self.job.start:
            self._begin()
        self.step = step
        self.losses.append(loss)
        self.progress.update(1, f"loss {loss:.3f}")
        every = self.settings.print_every
        if val or step == self.job.end or (every > 0 and step % every == 0):
            self._report(val)

    def _begin(self) -> None:
        """Change the run only now that a step has been made: until then it may all come to nothing."""
        run = self.job.run
        if not self.job.start:
            run.clear()
        run.start(self.job.weights, self.mark)
        self.job.begun()
        self.metrics.cut(self.job.start)
        for report in self.before:
            self.metrics.add(report)

    def _report(self, val: list[float] | None) -> None:
        a_step = self.options["batch_size"] * self.options["accumulate_gradients"] * (self.window - 1)
        report = Report(
            step=self.step,
            loss=sum(self.losses) / len(self.losses) if self.losses else None,
            val_loss=val[0] if val else None,
            val_bits_per_char=val[1] if val else None,
            tokens=(self.step - self.job.start) * a_step,
            seconds=round(time.monotonic() - self.started, 3),
            lr=self.options["learning_rate"],
        )
        self.losses = []
        _log.info("%s", report)
        if self.step > self.job.start:
            self.metrics.add(report)
        else:
            self.before.append(report)

    def _write_samples(self, step: int, folder: Path) -> None:
        """Move what gpt-2-simple has sampled to `<sample_dir>/<run>/samples-<step>`; it counts one more."""
        text = (folder / f"samples/run/samples-{step + 1}").read_text(encoding="utf8")
        if self.mark.record_tokens == COMPACT:
            # The one token stands at the start as it does at the end.
            text = text.replace(f"=\n{END}", f"=\n{START}").replace(END + END, END + START)
        with whole(self.settings.sample_dir / self.job.run.path.name / f"samples-{step}") as temporary:
            temporary.write_text(text, encoding="utf8")
        _log.info("%s", text.rstrip("\n"))

    def _stop(self, worker: Worker) -> None:
        if self.step == self.job.start:
            raise Interrupted(f"{self.job.run.path}: stopped before a step was done; nothing has changed")
        worker.ask_to_stop()

    def _keep_summaries(self, folder: Path) -> None:
        """What TensorBoard shows goes with the run, if anything was learned."""
        if self.step > self.job.start:
            for file in (folder / "checkpoint/run").glob("events.*"):
                shutil.move(file, self.job.run.path / file.name)


def _options(settings: FinetuneSettings, usual_rate: float) -> dict[str, Any]:
    """The arguments of gpt_2.finetune that are the settings'; raises UsageError for what it can't do."""
    saves_memory = settings.memory_saving_gradients
    accumulated = settings.accumulate_gradients or (1 if saves_memory else ACCUMULATED)
    if saves_memory and accumulated > 1:
        raise UsageError(
            "--memory-saving-gradients: gpt-2-simple has them only with --accumulate-gradients 1; leave one of them out"
        )
    if settings.precision in ("bfloat16", "float16"):
        raise UsageError("--precision: gpt-2-simple computes in float32 alone; leave it out")
    return {
        "batch_size": settings.batch_size or BATCH_SIZE,
        "accumulate_gradients": accumulated,
        "learning_rate": settings.learning_rate or usual_rate,
        "optimizer": settings.optimizer,
        "use_memory_saving_gradients": saves_memory,
        "only_train_transformer_layers": settings.trained == "layers",
        "sample_every": settings.sample_every,
        "sample_num": settings.sample_num,
        "save_every": settings.save_every,
        "print_every": settings.print_every,
    }


def _stream(train: Examples | DynamicExamples | Stream, record_tokens: str, tokenizer: Tokenizer) -> Stream:
    """What to cut windows from: records one after another, literal ones each on a line, as in an encoded file."""
    if isinstance(train, Stream):
        return train
    sequences = train.pool(0, np.arange(len(train))).sequences
    ids, starts = sequences.ids, sequences.starts
    if record_tokens == COMPACT:
        return Stream((ids,))
    [line_break] = tokenizer.encode(["\n"])[0].ids
    return Stream((np.insert(ids, starts[1:], line_break),))


def _save(path: Path, arrays: dict[str, "NDArray[Any]"]) -> None:
    try:
        np.savez(path, allow_pickle=False, **arrays)
    except OSError as error:
        raise InputError(f"{path}: can't be written: {error.strerror or error}") from error
