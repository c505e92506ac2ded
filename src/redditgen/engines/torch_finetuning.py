"""A finetuning with PyTorch: its steps, and what it writes on the way."""

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import count, islice
from random import Random
from typing import TYPE_CHECKING

from redditgen.engines import Job, interrupted_at, planning
from redditgen.engines.reporting import Reporting
from redditgen.errors import RedditgenError
from redditgen.gpt2.divergence import Divergence
from redditgen.gpt2.epochs import batches_from
from redditgen.gpt2.events import Events
from redditgen.gpt2.examples import prompt_ids
from redditgen.gpt2.mark import TITLE
from redditgen.gpt2.metrics import measured_since_best
from redditgen.gpt2.parallel import ALONE, Ranks
from redditgen.gpt2.plot import NAME as PLOT
from redditgen.gpt2.plot import plot
from redditgen.gpt2.sampling import through_end
from redditgen.gpt2.training import Evaluation, Training, default_learning_rate
from redditgen.gpt2.windows import Stream
from redditgen.interrupts import held_back
from redditgen.output import whole
from redditgen.progress import Progress
from redditgen.settings import FinetuneSettings

if TYPE_CHECKING:
    import torch

    Batch = tuple[torch.Tensor, torch.Tensor]  # inputs and targets, both [rows, tokens]

BATCH_SIZE = 32  # records or windows

_log = logging.getLogger(__name__)


class Finetuning:
    """One command's training of one run, and what it writes on the way."""

    def __init__(
        self,
        settings: FinetuneSettings,
        job: Job,
        *,
        ranks: Ranks = ALONE,
        progress: Callable[..., Progress] = Progress,
        interrupts: Callable[[], AbstractContextManager[Callable[[], bool]]] = held_back,
    ) -> None:
        """Of several `ranks` each makes one and runs it; the first alone writes, on the others `follow` is run.

        `progress` makes what shows the steps, and `interrupts` what tells whether to save and end.
        """
        self.settings, self.job, self.data = settings, job, job.dataset
        self.ranks, self.progress, self.interrupts = ranks, progress, interrupts
        hparams = job.weights.hparams()
        self.tokenizer = job.weights.tokenizer()
        each = settings.batch_size or BATCH_SIZE
        self.batch_size = each * ranks.count
        self._warn_of_few()
        plan = ranks.agreed(planning.plan(settings, job, each, ranks))
        begun = planning.beginning(settings, job, plan)
        self.training = Training(
            hparams,
            begun.weights.tensors,
            rate=settings.learning_rate or default_learning_rate(hparams, plan.train),
            end=job.end,
            plan=plan,
            optimizer=settings.optimizer,
            base=begun.base,
            adapters=begun.adapters,
            seed=settings.seed,
            ranks=ranks,
        )
        if begun.is_resumed and (state := job.run.optimizer_state()):
            self.training.restore_optimizer(state, job.start)
        self.divergence = Divergence(hparams.n_vocab)
        self.measured_at = self.saved_at = job.start

    def _warn_of_few(self) -> None:
        there = self.data.train
        if not isinstance(there, Stream) and len(there) < self.batch_size:
            _log.warning(
                "%s: %d records are fewer than a batch of %d; each step learns from all of them",
                self.settings.dataset,
                len(there),
                self.batch_size,
            )

    def run(self) -> int:
        run, start, end = self.job.run, self.job.start, self.job.end
        if not start:
            run.clear()
        run.start(self.job.weights, self.data.mark)
        self.job.begun()
        run.metrics.cut(start)
        bar = self.progress(run.path.name, unit="steps", total=end, done=start)
        with bar as progress, Events(run.path, start) as events:
            self.reporting = Reporting(run.metrics, events, self.training.device)
            if not start and len(self.data.held_out):
                self._report(0, measured=True)
            with self.interrupts() as interrupted:
                for step, (batches, tokens) in zip(range(start + 1, end + 1), self._timed_steps(start), strict=False):
                    self._learn(step, batches, tokens)
                    progress.update(1, self.reporting.note())
                    if self.ranks.agreed(self._has_ended(step, interrupted())):
                        return step
        return end

    def follow(self) -> None:
        """Take the same steps as the first rank, until it ends."""
        steps = zip(range(self.job.start + 1, self.job.end + 1), self._steps(self.job.start), strict=False)
        for step, (batches, _) in steps:
            self.training.step(step, *batches)
            if self.ranks.agreed(False):
                return

    def _timed_steps(self, done: int) -> "Iterator[tuple[list[Batch], int]]":
        """What each step learns from; making it counts as a part of the step."""
        steps = self._steps(done)
        while True:
            self.reporting.begin_step()
            yield next(steps)

    def _learn(self, step: int, batches: "list[Batch]", tokens: int) -> None:
        self.batches, loss = batches, self.training.step(step, *batches)
        self.reporting.end_step(
            loss,
            tokens=tokens,
            titles=0 if isinstance(self.data.train, Stream) else sum(len(inputs) for inputs, _ in batches),
        )
        self.divergence.add(loss)
        if self.divergence.is_certain:
            raise self._diverged(step, loss)

    def _has_ended(self, step: int, is_interrupted: bool) -> bool:
        """Write what is due after a step; raises Interrupted where that was asked for."""
        is_late = time.monotonic() >= self.job.deadline
        is_end = is_late or step == self.job.end
        is_stalled = self._write(step, last=is_end or is_interrupted, measured=is_end)
        if step == self.job.end:
            return True
        if is_interrupted:
            raise interrupted_at(step, self.job, self.settings)
        if is_late or is_stalled:
            why = f"--time-limit {self.settings.time_limit}" if is_late else f"--early-stop {self.settings.early_stop}"
            _log.info("%s: saved at step %d, by %s", self.job.run.path, step, why)
        return is_late or is_stalled

    def _write(self, step: int, *, last: bool, measured: bool) -> bool:
        """Report, sample and save, whatever is due after a step; gives whether --early-stop ends the run there."""
        settings = self.settings
        saves = last or _is_due(step, settings.save_every)
        # Reported before each save, so that a run that goes on from it lacks no step's loss in its next report.
        if saves or _is_due(step, settings.print_every) or _is_due(step, settings.val_every):
            self._report(step, measured=measured)
        is_stalled = self._is_stalled(step)
        if _is_due(step, settings.sample_every):
            self._sample(step)
        is_best = settings.keep_best and self.measured_at == step and self.job.run.best_step(step) == step
        if saves or is_stalled or is_best:
            self._save(step, last=last or is_stalled)
        return is_stalled

    def _is_stalled(self, step: int) -> bool:
        """Whether the held-out loss, measured at this step, has not become lower for long enough."""
        settings = self.settings
        if settings.early_stop is None or self.measured_at != step:
            return False
        reports, after = self.job.run.metrics.reports(), self.job.start if settings.more else 0
        return measured_since_best(reports, after=after) >= settings.early_stop

    def _save(self, step: int, *, last: bool) -> None:
        """Save, unless the loss may be going up for good, or raise RedditgenError if it were the `last` chance."""
        run, settings = self.job.run, self.settings
        loss = self.training.loss(*self.batches)
        if self.divergence.may_be or self.divergence.may_begin(loss):
            if last:
                raise self._diverged(step, loss)
            _log.warning("%s: not saved at step %d, since the loss is going up", run.path, step)
            return
        run.metrics.settle()
        run.write_step(
            step,
            self.training.tensors(),
            self.training.optimizer_state(),
            keep=settings.max_checkpoints,
            best=run.best_step(step) if settings.keep_best else None,
            save_adapters=self.training.adapters.save if self.training.adapters else None,
        )
        self.saved_at = step
        if settings.plot:
            plot(run.metrics.reports(), run.path / PLOT)

    def _diverged(self, step: int, loss: float) -> RedditgenError:
        kept = f"the checkpoint of step {self.saved_at} is kept" if self.saved_at else "nothing was saved"
        return RedditgenError(
            f"{self.job.run.path}: the loss is {loss:.2f} at step {step}, after "
            f"{self.divergence.began_at:.2f} at first, so training has ended; {kept}; "
            f"lower --learning-rate, which is {self.training.rate:g}"
        )

    def _steps(self, done: int) -> "Iterator[tuple[list[Batch], int]]":
        """The batches of each step behind `done`, and their tokens; they follow from the seed and the step alone."""
        a_step = self.settings.accumulate_gradients or 1
        data, settings = self.data.train, self.settings
        if isinstance(data, Stream):
            yield from (self._windows(data, step, a_step) for step in count(done + 1))
            return
        titles_alone = self.data.mark.loss_on == TITLE
        one_by_one = batches_from(done * a_step, data, self.batch_size, settings.seed, titles_alone=titles_alone)
        while True:
            batches, tokens = zip(*islice(one_by_one, a_step), strict=True)
            yield list(batches), sum(tokens)

    def _windows(self, stream: Stream, step: int, a_step: int) -> "tuple[list[Batch], int]":
        import torch

        length = min(self.settings.window, self.training.hparams.n_ctx)
        drawn = stream.windows(a_step * self.batch_size, length, seed=self.settings.seed, step=step)
        rows = torch.from_numpy(drawn).long().split(self.batch_size)
        batches = [(row[:, :-1], row[:, 1:]) for row in rows]
        return batches, sum(targets.numel() for _, targets in batches)

    def _report(self, step: int, *, measured: bool) -> None:
        found: Evaluation | None = None
        if len(self.data.held_out) and (measured or _is_due(step, self.settings.val_every)):
            found = self.training.evaluate(self.data.held_out, self.batch_size)
            self.measured_at = step
            if not math.isfinite(found.loss):
                raise self._diverged(step, found.loss)
        self.reporting.report(step, self.training.learning_rate(step), found)

    def _sample(self, step: int) -> None:
        """Write records that the network makes when nothing is asked of it, to `<sample_dir>/<run>/samples-<step>`."""
        mark, settings = self.data.mark, self.settings
        prompt = mark.opening(mark.some_category(Random(step)))
        [ids] = prompt_ids([prompt], self.tokenizer, mark.record_tokens)
        rows = self.training.sample(ids, settings.sample_num, settings.sample_length, seed=step)
        texts = [prompt + through_end(self.tokenizer.decode(row)) for row in rows]
        with whole(settings.sample_dir / self.job.run.path.name / f"samples-{step}") as temporary:
            temporary.write_text("".join(f"{text}\n" for text in texts), encoding="utf8")
        for text in texts:
            _log.info("%s", text)


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
