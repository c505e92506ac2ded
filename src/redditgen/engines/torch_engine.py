"""The torch engine: trains with PyTorch and samples with CTranslate2, on gpt-2-simple's directories."""

import logging
import time
from collections.abc import Generator, Iterator, Sequence
from itertools import chain, count, islice
from typing import TYPE_CHECKING

from redditgen.engines import Job, interrupted_at
from redditgen.gpt2.batches import IGNORED, batches, padded
from redditgen.gpt2.examples import Examples, prompt_ids
from redditgen.gpt2.metrics import Metrics, Report
from redditgen.gpt2.rundir import ModelDir
from redditgen.gpt2.sampling import Sampler, Sampling, through_end
from redditgen.gpt2.training import Evaluation, Training, default_learning_rate
from redditgen.gpt2.windows import Stream
from redditgen.interrupts import held_back
from redditgen.output import whole
from redditgen.progress import Progress
from redditgen.settings import FinetuneSettings, GenerateSettings

if TYPE_CHECKING:
    import torch

    Batch = tuple[torch.Tensor, torch.Tensor]  # inputs and targets, both [rows, tokens]

BATCH_SIZE = 32  # records or windows

_log = logging.getLogger(__name__)


def finetune(settings: FinetuneSettings, job: Job) -> int:
    """Train a run to `job.end` and save it; gives the step reached.

    Raises Interrupted, with the run saved, on Ctrl-C or SIGTERM.
    """
    return _Finetuning(settings, job).run()


def generate(settings: GenerateSettings, run: ModelDir, prompts: Sequence[str], seed: int) -> Generator[str]:
    """The text of each prompt, in order, made in blocks of `settings.batch_size`."""
    how = Sampling(temperature=settings.temperature, top_k=settings.top_k, top_p=settings.top_p, length=settings.length)
    yield from Sampler(run).blocks(prompts, settings.batch_size, how, seed)


class _Finetuning:
    """One command's training of one run, and what it writes on the way."""

    def __init__(self, settings: FinetuneSettings, job: Job) -> None:
        self.settings, self.job, self.data = settings, job, job.dataset
        hparams = job.weights.hparams()
        self.tokenizer = job.weights.tokenizer()
        self.batch_size = settings.batch_size or BATCH_SIZE
        self.training = Training(
            hparams,
            job.weights.tensors(),
            rate=settings.learning_rate or default_learning_rate(hparams),
            end=job.end,
            precision=settings.precision,
            optimizer=settings.optimizer,
            only_layers=settings.only_train_transformer_layers,
            save_memory=settings.memory_saving_gradients,
        )
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
            for step, now in zip(range(start + 1, end + 1), self._steps(start), strict=False):
                self.losses.append(self.training.step(step, *now))
                self.tokens += sum(int((targets != IGNORED).sum()) for _, targets in now)
                progress.update(1, f"loss {self.losses[-1]:.3f}")
                stop = interrupted()
                self._write(step, last=stop or step == end)
                if stop:
                    raise interrupted_at(step, self.job, self.settings)
        return end

    def _write(self, step: int, *, last: bool) -> None:
        """Report, sample and save, whatever is due after a step."""
        settings = self.settings
        if last or _is_due(step, settings.print_every) or _is_due(step, settings.val_every):
            self._report(step)
        if _is_due(step, settings.sample_every):
            self._sample(step)
        if last or _is_due(step, settings.save_every):
            state, keep = self.training.optimizer_state(), settings.max_checkpoints
            self.job.run.write_step(step, self.training.tensors(), state, keep=keep)

    def _steps(self, done: int) -> "Iterator[list[Batch]]":
        """The batches of each step from `done` + 1 on; they follow from the seed and the step alone."""
        a_step = self.settings.accumulate_gradients or 1
        match self.data.train:
            case Examples() as examples:
                one_by_one = self._batches(examples, done * a_step)
                while True:
                    yield list(islice(one_by_one, a_step))
            case Stream() as stream:
                for step in count(done + 1):
                    yield self._windows(stream, step, a_step)

    def _batches(self, examples: Examples, done: int) -> "Iterator[Batch]":
        import numpy as np

        lengths, size, seed = examples.sequences.lengths, self.batch_size, self.settings.seed
        a_pass = -(-len(lengths) // size)
        epochs = (batches(lengths, size, np.random.default_rng([seed, epoch])) for epoch in count(done // a_pass))
        for indices in islice(chain.from_iterable(epochs), done % a_pass, None):
            yield padded(examples.sequences, indices)

    def _windows(self, stream: Stream, step: int, a_step: int) -> "list[Batch]":
        import torch

        length = min(self.settings.window, self.training.hparams.n_ctx)
        drawn = stream.windows(a_step * self.batch_size, length, seed=self.settings.seed, step=step)
        rows = torch.from_numpy(drawn).long().split(self.batch_size)
        return [(row[:, :-1], row[:, 1:]) for row in rows]

    def _report(self, step: int) -> None:
        measured: Evaluation | None = None
        if len(self.data.held_out) and (step in (0, self.job.end) or _is_due(step, self.settings.val_every)):
            measured = self.training.evaluate(self.data.held_out, self.batch_size)
        report = Report(
            step=step,
            loss=sum(self.losses) / len(self.losses) if self.losses else None,
            val_loss=measured.loss if measured else None,
            val_bits_per_char=measured.bits_per_char if measured else None,
            tokens=self.tokens,
            seconds=round(time.monotonic() - self.started, 3),
            lr=self.training.learning_rate(step),
        )
        self.losses = []
        self.metrics.add(report)
        _log.info("%s", report)

    def _sample(self, step: int) -> None:
        """Write records that the network makes of nothing, to `<sample_dir>/<run>/samples-<step>`."""
        mark, settings = self.data.mark, self.settings
        prompt = mark.opening()
        [ids] = prompt_ids([prompt], self.tokenizer, mark.record_tokens)
        rows = self.training.sample(ids, settings.sample_num, settings.sample_length, seed=step)
        texts = [prompt + through_end(self.tokenizer.decode(row)) for row in rows]
        with whole(settings.sample_dir / self.job.run.path.name / f"samples-{step}") as temporary:
            temporary.write_text("".join(f"{text}\n" for text in texts), encoding="utf8")
        for text in texts:
            _log.info("%s", text)


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
