"""The torch engine: trains with PyTorch and samples with CTranslate2, on gpt-2-simple's directories."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count, islice
from typing import TYPE_CHECKING

from redditgen import markup
from redditgen.errors import InputError, Interrupted
from redditgen.gpt2.batches import batches, padded
from redditgen.gpt2.dataset import Examples, examples, is_held_out, prompt_ids
from redditgen.gpt2.metrics import Metrics, Report
from redditgen.gpt2.rundir import Mark, ModelDir
from redditgen.gpt2.sampling import Sampler, Sampling, through_end
from redditgen.gpt2.tokenizer import Tokenizer
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


@dataclass(frozen=True)
class _Data:
    """A dataset, tokenized and split by title, and the mark of a run that learns from it."""

    train: Examples
    held_out: Examples
    mark: Mark


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


def _read(settings: FinetuneSettings, job: Job, tokenizer: Tokenizer, context: int) -> _Data:
    kept: list[Record] = []
    held_out: list[Record] = []
    sections: set[str] = set(job.mark.sections)
    categories: Counter[str] = Counter()
    for record in records(settings.dataset):
        is_out = is_held_out(record.title or "", settings.val_fraction, settings.seed)
        (held_out if is_out else kept).append(record)
        sections |= {name for name in SECTIONS if getattr(record, name) is not None}
        if record.category is not None:
            categories[record.category] += 1
    if not kept:
        raise InputError(f"{settings.dataset}: every title is held out and none left to train on; lower --val-fraction")
    if not held_out and settings.val_fraction:
        _log.warning("%s: too few titles to hold any out, so no held-out loss is measured", settings.dataset)
    _log.info("%s: %d records to train on, %d held out", settings.dataset, len(kept), len(held_out))
    train, measured = (
        examples(part, tokenizer, job.mark.record_tokens, context) for part in (kept, held_out[:HELD_OUT_AT_MOST])
    )
    if train.cut:
        _log.warning("%s: %d records are longer than %d tokens and were cut", settings.dataset, train.cut, context)
    in_order = tuple(name for name in SECTIONS if name in sections)
    return _Data(train, measured, replace(job.mark, sections=in_order, categories=job.mark.categories | categories))


class _Finetuning:
    """One command's training of one run, and what it writes on the way."""

    def __init__(self, settings: FinetuneSettings, job: Job) -> None:
        self.settings, self.job = settings, job
        hparams = job.weights.hparams()
        tensors = job.weights.tensors()
        self.tokenizer = job.weights.tokenizer()
        self.data = _read(settings, job, self.tokenizer, hparams.n_ctx)
        rate = settings.learning_rate or default_learning_rate(hparams)
        self.training = Training(hparams, tensors, rate=rate, end=job.end, precision=settings.precision)
        if job.start and (state := job.run.optimizer_state()):
            self.training.restore_optimizer(state, job.start)
        self.metrics = Metrics(job.run.path / "metrics.jsonl")
        self.losses: list[float] = []  # of the steps since the last report
        self.tokens = 0
        self.started = time.monotonic()

    def run(self) -> int:
        run, start, end = self.job.run, self.job.start, self.job.end
        if not start:
            run.clear()
        run.start(self.job.weights, self.data.mark)
        self.metrics.cut(start)
        if not start and len(self.data.held_out):
            self._report(0)
        with held_back() as interrupted, Progress(run.path.name, unit="steps", total=end, done=start) as progress:
            for step, indices in zip(range(start + 1, end + 1), self._batches(start), strict=False):
                self._learn(step, indices)
                progress.update(1, f"loss {self.losses[-1]:.3f}")
                stop = interrupted()
                self._write(step, last=stop or step == end)
                if stop:
                    raise Interrupted(f"{run.path}: saved at step {step}; the same command goes on from there")
        return end

    def _learn(self, step: int, indices: "NDArray[np.int64]") -> None:
        inputs, targets = padded(self.data.train.sequences, indices)
        self.losses.append(self.training.step(step, inputs, targets))
        self.tokens += int(self.data.train.sequences.lengths[indices].sum()) - len(indices)

    def _write(self, step: int, *, last: bool) -> None:
        """Report, sample and save, whatever is due after a step."""
        settings = self.settings
        if last or _is_due(step, settings.print_every) or _is_due(step, settings.val_every):
            self._report(step)
        if _is_due(step, settings.sample_every):
            self._sample(step)
        if last or _is_due(step, settings.save_every):
            self.job.run.write_step(step, self.training.tensors(), self.training.optimizer_state())

    def _batches(self, done: int) -> "Iterator[NDArray[np.int64]]":
        """The batches from step `done` + 1 on: their order follows from the seed and the epoch alone."""
        import numpy as np

        lengths, size, seed = self.data.train.sequences.lengths, self.settings.batch_size, self.settings.seed
        a_pass = -(-len(lengths) // size)
        epochs = (batches(lengths, size, np.random.default_rng([seed, epoch])) for epoch in count(done // a_pass))
        return islice(chain.from_iterable(epochs), done % a_pass, None)

    def _report(self, step: int) -> None:
        measured: Evaluation | None = None
        if len(self.data.held_out) and (step in (0, self.job.end) or _is_due(step, self.settings.val_every)):
            measured = self.training.evaluate(self.data.held_out, self.settings.batch_size)
        report = Report(
            step=step,
            loss=sum(self.losses) / len(self.losses) if self.losses else None,
            val_loss=measured.loss if measured else None,
            val_bits_per_char=measured.bits_per_char if measured else None,
            tokens=self.tokens,
            seconds=round(time.monotonic() - self.started, 3),
            lr=learning_rate(step, self.job.end, self.training.rate),
        )
        self.losses = []
        self.metrics.add(report)
        _log.info("%s", report)

    def _sample(self, step: int) -> None:
        """Write records that the network makes of nothing, to `<sample_dir>/<run>/samples-<step>`."""
        mark, settings = self.data.mark, self.settings
        prompt = markup.prompt(Record(), mark.sections[0])
        [ids] = prompt_ids([prompt], self.tokenizer, mark.record_tokens)
        rows = self.training.sample(ids, settings.sample_num, settings.sample_length, seed=step)
        texts = [prompt + through_end(self.tokenizer.decode(row)) for row in rows]
        with whole(settings.sample_dir / self.job.run.path.name / f"samples-{step}") as temporary:
            temporary.write_text("".join(f"{text}\n" for text in texts), encoding="utf8")
        for text in texts:
            _log.info("%s", text)


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
