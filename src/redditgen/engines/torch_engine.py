"""The torch engine: trains with PyTorch and samples with CTranslate2, on gpt-2-simple's directories."""

import json
import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain, count, islice
from pathlib import Path
from typing import TYPE_CHECKING

from redditgen import markup
from redditgen.errors import InputError, Interrupted
from redditgen.gpt2.batches import batches, padded
from redditgen.gpt2.dataset import Examples, examples, is_held_out, prompt_ids
from redditgen.gpt2.rundir import Mark, ModelDir
from redditgen.gpt2.sampling import Sampler, Sampling, through_end
from redditgen.gpt2.training import Evaluation, Training, default_learning_rate, learning_rate
from redditgen.interrupts import held_back
from redditgen.markup import SECTIONS, Record
from redditgen.output import whole
from redditgen.progress import Progress
from redditgen.records import records
from redditgen.settings import FinetuneSettings, GenerateSettings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

HELD_OUT_AT_MOST = 2000  # records measured

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Job:
    """Which run to train, from which weights, between which steps."""

    run: ModelDir
    weights: ModelDir
    mark: Mark
    start: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Report:
    """A line of `metrics.jsonl`; None where nothing was measured, seconds since the command began."""

    step: int
    loss: float | None = None
    val_loss: float | None = None
    val_bits_per_char: float | None = None
    tokens: int = 0
    seconds: float = 0.0
    lr: float = 0.0

    def line(self) -> str:
        values = [("loss", self.loss), ("held-out loss", self.val_loss), ("bits a character", self.val_bits_per_char)]
        shown = "  ".join(f"{name} {value:.3f}" for name, value in values if value is not None)
        return f"[{self.step} | {self.seconds:.1f} s]  {shown}"


def finetune(settings: FinetuneSettings, job: Job) -> int:
    """Train a run to `job.end` and save it; gives the step reached.

    Raises Interrupted, with the run saved, on Ctrl-C or SIGTERM.
    """
    return _Finetuning(settings, job).run()


def generate(settings: GenerateSettings, run: ModelDir) -> "Callable[[Sequence[str], int], Iterator[str]]":
    """A function of a block of prompts and a seed that gives the prompts' texts, each through its end token."""
    sampler = Sampler(run)
    how = Sampling(temperature=settings.temperature, top_k=settings.top_k, top_p=settings.top_p, length=settings.length)
    return lambda prompts, seed: sampler.continued(prompts, how, seed)


class _Finetuning:
    """One command's training of one run: data, network, and what is written on the way."""

    def __init__(self, settings: FinetuneSettings, job: Job) -> None:
        self.settings, self.job = settings, job
        self.hparams = job.weights.hparams()
        self.tokenizer = job.weights.tokenizer()
        tensors = job.weights.tensors()
        self.train, self.held_out, self.mark = self._read()
        self.training = Training(
            self.hparams,
            tensors,
            rate=settings.learning_rate or default_learning_rate(self.hparams),
            end=job.end,
            precision=settings.precision,
        )
        if job.start and (state := job.run.optimizer_state()):
            self.training.restore_optimizer(state, job.start)
        self.tokens = 0
        self.started = time.monotonic()

    def run(self) -> int:
        run, start, end = self.job.run, self.job.start, self.job.end
        if not start:
            shutil.rmtree(run.path, ignore_errors=True)
        run.start(self.job.weights, self.mark)
        self._cut_metrics()
        if not start:
            self._report(start)
        losses: list[float] = []
        with held_back() as interrupted, Progress(run.path.name, unit="steps", total=end, done=start) as progress:
            for step, indices in zip(range(start + 1, end + 1), self._batches(start), strict=False):
                inputs, targets = padded(self.train.sequences, indices)
                losses.append(self.training.step(step, inputs, targets))
                self.tokens += int(self.train.sequences.lengths[indices].sum()) - len(indices)
                progress.update(1, f"loss {losses[-1]:.3f}")
                last = step == end or interrupted()
                if last or self._due(step, self.settings.print_every) or self._due(step, self.settings.val_every):
                    self._report(step, losses)
                    losses = []
                if self._due(step, self.settings.sample_every):
                    self._sample(step)
                if last or self._due(step, self.settings.save_every):
                    run.write_step(step, self.training.tensors(), self.training.optimizer_state())
                if interrupted():
                    raise Interrupted(
                        f"{run.path}: stopped at step {step} and saved; the same command goes on from there"
                    )
        return end

    def _due(self, step: int, every: int) -> bool:
        return every > 0 and step % every == 0

    def _read(self) -> tuple[Examples, Examples, Mark]:
        """The dataset, split by title, and the run's mark with what stands in it."""
        kept: list[Record] = []
        held_out: list[Record] = []
        sections: set[str] = set()
        categories: Counter[str] = Counter(self.job.mark.categories)
        for record in records(self.settings.dataset):
            is_out = is_held_out(record.title or "", self.settings.val_fraction, self.settings.seed)
            (held_out if is_out else kept).append(record)
            sections |= {name for name in SECTIONS if getattr(record, name) is not None}
            if record.category is not None:
                categories[record.category] += 1
        if not kept:
            raise InputError(f"{self.settings.dataset}: no title is left to train on; lower --val-fraction")
        if not held_out:
            _log.warning(
                "%s: too few titles to hold any out, so nothing is measured on held-out ones", self.settings.dataset
            )
        mark = replace(
            self.job.mark, sections=tuple(name for name in SECTIONS if name in sections), categories=dict(categories)
        )
        train, measured = (self._examples(part) for part in (kept, held_out[:HELD_OUT_AT_MOST]))
        _log.info("%s: %d records to train on, %d held out", self.settings.dataset, len(kept), len(held_out))
        return train, measured, mark

    def _examples(self, part: list[Record]) -> Examples:
        made = examples(part, self.tokenizer, self.job.mark.record_tokens, self.hparams.n_ctx)
        if made.cut:
            _log.warning("%d records are longer than %d tokens and were cut", made.cut, self.hparams.n_ctx)
        return made

    def _batches(self, done: int) -> "Iterator[NDArray[np.int64]]":
        """The batches from step `done` + 1 on: the order follows from the seed and the epoch alone."""
        import numpy as np

        lengths, size = self.train.sequences.lengths, self.settings.batch_size
        a_pass = -(-len(self.train) // size)
        epochs = (
            batches(lengths, size, np.random.default_rng([self.settings.seed, epoch]))
            for epoch in count(done // a_pass)
        )
        return islice(chain.from_iterable(epochs), done % a_pass, None)

    def _report(self, step: int, losses: Sequence[float] = ()) -> None:
        measured: Evaluation | None = None
        if len(self.held_out) and (step in (0, self.job.end) or self._due(step, self.settings.val_every)):
            measured = self.training.evaluate(self.held_out, self.settings.batch_size)
        report = Report(
            step=step,
            loss=sum(losses) / len(losses) if losses else None,
            val_loss=measured.loss if measured else None,
            val_bits_per_char=measured.bits_per_char if measured else None,
            tokens=self.tokens,
            seconds=round(time.monotonic() - self.started, 3),
            lr=learning_rate(step, self.job.end, self.training.rate),
        )
        _log.info("%s", report.line())
        with self._metrics_path().open("a", encoding="utf8") as file:
            file.write(json.dumps(asdict(report)) + "\n")

    def _metrics_path(self) -> Path:
        return self.job.run.path / "metrics.jsonl"

    def _cut_metrics(self) -> None:
        """Drop the reports of steps that were not saved, since they come again."""
        path = self._metrics_path()
        if path.exists():
            lines = path.read_text(encoding="utf8").splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= self.job.start]
            with whole(path) as temporary:
                temporary.write_text("".join(kept), encoding="utf8")

    def _sample(self, step: int) -> None:
        """Write records that the network makes of nothing, to `<sample_dir>/<run>/samples-<step>`."""
        first_section = next(iter(self.mark.sections))
        prompt = markup.prompt(Record(), first_section)
        [ids] = prompt_ids([prompt], self.tokenizer, self.mark.record_tokens)
        number, length = self.settings.sample_num, self.settings.sample_length
        texts = [
            prompt + through_end(self.tokenizer.decode(row))
            for row in self.training.sample(ids, number, length, seed=step)
        ]
        with whole(self.settings.sample_dir / self.job.run.path.name / f"samples-{step}") as temporary:
            temporary.write_text("".join(f"{text}\n" for text in texts), encoding="utf8")
        for text in texts:
            _log.info("%s", text)
