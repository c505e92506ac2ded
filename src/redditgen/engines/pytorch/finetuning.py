"""The loop of a training with PyTorch: its steps, and the reports, samples and checkpoints that it writes.

After each step the loop reports, samples and saves whatever is due, in this order, and then decides whether to end: at
the last step, at the deadline, on an interruption, or when early stopping finds no new lowest held-out loss. It saves
at every such end. It does not save while the loss may be diverging, and ends with an error once it has diverged (see
`divergence`). Batches follow from the seed and the step alone, so a resumed training continues with the batches that an
uninterrupted one would have got.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import count, islice
from random import Random
from typing import TYPE_CHECKING

from redditgen.engines.base import TrainingJob, cut_after_end_token, default_learning_rate, interrupted_error
from redditgen.engines.data.epochs import training_batches
from redditgen.engines.data.examples import tokenize_prompts
from redditgen.engines.data.token_stream import TokenStream
from redditgen.engines.pytorch import planning
from redditgen.engines.pytorch.divergence import DivergenceDetector
from redditgen.engines.pytorch.loss_plot import plot_losses
from redditgen.engines.pytorch.parallel import SINGLE_PROCESS, Ranks
from redditgen.engines.pytorch.reporting import StepReporter
from redditgen.engines.pytorch.tensorboard_events import EventWriter
from redditgen.engines.pytorch.training import HeldOutLoss, Training
from redditgen.errors import RedditgenError
from redditgen.files.atomic import atomic_write
from redditgen.gpt2.metrics import measurements_since_best
from redditgen.gpt2.model_dir import PLOT_FILE
from redditgen.gpt2.run_info import LOSS_ON_TITLE
from redditgen.runtime.progress import Progress
from redditgen.runtime.signals import deferred_signals

if TYPE_CHECKING:
    import torch

    Batch = tuple[torch.Tensor, torch.Tensor]  # inputs and targets, both [rows, tokens]

DEFAULT_BATCH_SIZE = 32  # records or windows

_log = logging.getLogger(__name__)


class TorchFinetuning:
    """One command's training of one run."""

    def __init__(
        self,
        job: TrainingJob,
        *,
        ranks: Ranks = SINGLE_PROCESS,
        progress: Callable[..., Progress] = Progress,
        interrupts: Callable[[], AbstractContextManager[Callable[[], bool]]] = deferred_signals,
    ) -> None:
        """Choose the plan, and load the weights and the state of the optimizer.

        With several `ranks`, each process creates its own TorchFinetuning. The first one calls `run`, and alone writes
        files; the others call `follow`. `progress` creates the display of the steps, and `interrupts` a context manager
        that yields a function, which returns whether to save and end. Raises InputError where no plan fits the memory.
        """
        self.job, self.data = job, job.dataset
        self.start, self.end = job.schedule.start, job.schedule.end
        self.ranks, self.progress, self.interrupts = ranks, progress, interrupts
        hyperparameters = job.initial_model.hyperparameters()
        self.tokenizer = job.initial_model.tokenizer()
        rank_batch_size = job.optimizer.batch_size or DEFAULT_BATCH_SIZE
        self.batch_size = rank_batch_size * ranks.count
        self._warn_if_few_records()
        plan = ranks.broadcast(planning.plan_for_job(job, rank_batch_size, ranks))
        initial = planning.starting_weights(job, plan)
        self.training = Training(
            hyperparameters,
            initial.model.tensors,
            rate=job.optimizer.learning_rate or default_learning_rate(hyperparameters, plan.train),
            end=self.end,
            plan=plan,
            optimizer=job.optimizer.name,
            base=initial.base,
            adapters=initial.adapters,
            seed=job.optimizer.seed,
            ranks=ranks,
        )
        if initial.is_resumed and (state := job.run.optimizer_state()):
            self.training.restore_optimizer(state, self.start)
        self.divergence = DivergenceDetector(hyperparameters.n_vocab)
        self.measured_at = self.saved_at = self.start

    def _warn_if_few_records(self) -> None:
        records = self.data.train
        if not isinstance(records, TokenStream) and len(records) < self.batch_size:
            _log.warning(
                "%s: %d records are fewer than a batch of %d; each step learns from all of them",
                self.data.source,
                len(records),
                self.batch_size,
            )

    def run(self) -> int:
        """Train to the end of the schedule, or until something ends it before; return the last step taken.

        Raises Interrupted, with the run saved, where it was interrupted, and RedditgenError where the loss diverged.
        """
        run, start, end = self.job.run, self.start, self.end
        if not start:
            run.clear_run()
        run.start_run(self.job.initial_model, self.data.run_info)
        self.job.on_first_change()
        run.metrics.delete_after(start)
        bar = self.progress(run.path.name, unit="steps", total=end, done=start)
        with bar as progress, EventWriter(run.path, start) as events:
            self.reporting = StepReporter(run.metrics, events, self.training.device)
            if not start and len(self.data.held_out):
                self._report(0, measured=True)
            with self.interrupts() as interrupted:
                for step, (batches, tokens) in zip(range(start + 1, end + 1), self._timed_steps(start), strict=False):
                    self._take_step(step, batches, tokens)
                    progress.update(1, self.reporting.note())
                    if self.ranks.broadcast(self._finish_step(step, interrupted())):
                        return step
        return end

    def follow(self) -> None:
        """Take the same steps as the first process, without writing anything, until that one ends."""
        steps = zip(range(self.start + 1, self.end + 1), self._step_batches(self.start), strict=False)
        for step, (batches, _) in steps:
            self.training.step(step, *batches)
            if self.ranks.broadcast(False):
                return

    def _timed_steps(self, done: int) -> "Iterator[tuple[list[Batch], int]]":
        """Yield as `_step_batches` does; the time that it takes to make the batches counts as part of the step."""
        steps = self._step_batches(done)
        while True:
            self.reporting.begin_step()
            yield next(steps)

    def _take_step(self, step: int, batches: "list[Batch]", tokens: int) -> None:
        """Take a step and note its loss. Raises RedditgenError where the loss has diverged."""
        self.batches, loss = batches, self.training.step(step, *batches)
        self.reporting.end_step(
            loss,
            tokens=tokens,
            titles=0 if isinstance(self.data.train, TokenStream) else sum(len(inputs) for inputs, _ in batches),
        )
        self.divergence.add(loss)
        if self.divergence.has_diverged:
            raise self._divergence_error(step, loss)

    def _finish_step(self, step: int, is_interrupted: bool) -> bool:
        """Write whatever is due after a step; return whether it was the last. Raises Interrupted on an interruption."""
        is_late = time.monotonic() >= self.job.schedule.deadline
        is_end = is_late or step == self.end
        is_stalled = self._write_due(step, last=is_end or is_interrupted, measured=is_end)
        if step == self.end:
            return True
        if is_interrupted:
            raise interrupted_error(step, self.job)
        if is_late or is_stalled:
            schedule = self.job.schedule
            reason = schedule.deadline_reason if is_late else f"--early-stop {schedule.early_stop}"
            _log.info("%s: saved at step %d, by %s", self.job.run.path, step, reason)
        return is_late or is_stalled

    def _write_due(self, step: int, *, last: bool, measured: bool) -> bool:
        """Report, sample and save whatever is due after a step; return whether early stopping ends the training there.

        `last` saves in any case, and `measured` measures the held-out loss in any case.
        """
        schedule, checkpoints = self.job.schedule, self.job.checkpoints
        is_saving = last or _is_due(step, checkpoints.save_every)
        # Reported before each save, so that a resumed training's next report lacks no step's loss.
        if is_saving or _is_due(step, schedule.print_every) or _is_due(step, schedule.val_every):
            self._report(step, measured=measured)
        is_stalled = self._is_stalled(step)
        if _is_due(step, self.job.samples.every):
            self._write_samples(step)
        is_best = checkpoints.keep_best and self.measured_at == step and self.job.run.best_step(step) == step
        if is_saving or is_stalled or is_best:
            self._save(step, last=last or is_stalled)
        return is_stalled

    def _is_stalled(self, step: int) -> bool:
        """Return whether the held-out loss was measured at this step, and early stopping's limit has been reached."""
        schedule = self.job.schedule
        if schedule.early_stop is None or self.measured_at != step:
            return False
        reports = self.job.run.metrics.reports()
        return measurements_since_best(reports, after=schedule.early_stop_from) >= schedule.early_stop

    def _save(self, step: int, *, last: bool) -> None:
        """Save a checkpoint, unless the loss may be diverging.

        In that case, logs a warning, or raises RedditgenError where this is the `last` save of the training.
        """
        run, checkpoints = self.job.run, self.job.checkpoints
        loss = self.training.loss(*self.batches)
        if self.divergence.may_be_diverging or self.divergence.last_step_spoilt_weights(loss):
            if last:
                raise self._divergence_error(step, loss)
            _log.warning("%s: not saved at step %d, since the loss is going up", run.path, step)
            return
        run.metrics.sync_to_disk()
        run.save_checkpoint(
            step,
            self.training.tensors(),
            self.training.optimizer_state(),
            keep=checkpoints.max_checkpoints,
            best=run.best_step(step) if checkpoints.keep_best else None,
            save_adapters=self.training.adapters.save if self.training.adapters else None,
        )
        self.saved_at = step
        if checkpoints.plot:
            plot_losses(run.metrics.reports(), run.path / PLOT_FILE)

    def _divergence_error(self, step: int, loss: float) -> RedditgenError:
        """Return the error that says that the loss diverged, and which checkpoint is kept."""
        kept_note = f"the checkpoint of step {self.saved_at} is kept" if self.saved_at else "nothing was saved"
        return RedditgenError(
            f"{self.job.run.path}: the loss is {loss:.2f} at step {step}, after "
            f"{self.divergence.initial_loss:.2f} at first, so training has ended; {kept_note}; "
            f"lower --learning-rate, which is {self.training.rate:g}"
        )

    def _step_batches(self, done: int) -> "Iterator[tuple[list[Batch], int]]":
        """Yield the batches of each step after `done`, and their number of tokens; without end."""
        batches_per_step = self.job.optimizer.accumulate_gradients or 1
        data = self.data.train
        if isinstance(data, TokenStream):
            yield from (self._window_batches(data, step, batches_per_step) for step in count(done + 1))
            return
        titles_only = self.data.run_info.loss_on == LOSS_ON_TITLE
        batch_stream = training_batches(
            done * batches_per_step, data, self.batch_size, self.job.optimizer.seed, titles_only=titles_only
        )
        while True:
            batches, tokens = zip(*islice(batch_stream, batches_per_step), strict=True)
            yield list(batches), sum(tokens)

    def _window_batches(self, stream: TokenStream, step: int, batches_per_step: int) -> "tuple[list[Batch], int]":
        """Return a step's batches of windows, as inputs and targets [rows, window - 1], and their number of tokens."""
        import torch

        optimizer = self.job.optimizer
        length = min(optimizer.window, self.training.hyperparameters.n_ctx)
        windows = stream.windows(batches_per_step * self.batch_size, length, seed=optimizer.seed, step=step)
        rows = torch.from_numpy(windows).long().split(self.batch_size)
        batches = [(row[:, :-1], row[:, 1:]) for row in rows]
        return batches, sum(targets.numel() for _, targets in batches)

    def _report(self, step: int, *, measured: bool) -> None:
        """Report a step, and measure the held-out loss if it is due or `measured` asks for it.

        Raises RedditgenError where the held-out loss is infinite or NaN.
        """
        held_out_loss: HeldOutLoss | None = None
        if len(self.data.held_out) and (measured or _is_due(step, self.job.schedule.val_every)):
            held_out_loss = self.training.evaluate(self.data.held_out, self.batch_size)
            self.measured_at = step
            if not math.isfinite(held_out_loss.loss):
                raise self._divergence_error(step, held_out_loss.loss)
        self.reporting.report(step, self.training.learning_rate(step), held_out_loss)

    def _write_samples(self, step: int) -> None:
        """Sample records and write them to `<sample_dir>/<run>/samples-<step>`.

        The prompt is how the run's records begin, with a category, drawn with the step as the seed, where the run needs
        one.
        """
        run_info, samples = self.data.run_info, self.job.samples
        prompt = run_info.opening_prompt(run_info.draw_category(Random(step)))
        [ids] = tokenize_prompts([prompt], self.tokenizer, run_info.record_tokens)
        rows = self.training.sample(ids, samples.number, samples.length, seed=step)
        texts = [prompt + cut_after_end_token(self.tokenizer.decode(row)) for row in rows]
        with atomic_write(samples.folder / self.job.run.path.name / f"samples-{step}") as temporary:
            temporary.write_text("".join(f"{text}\n" for text in texts), encoding="utf8")
        for text in texts:
            _log.info("%s", text)


def _is_due(step: int, every: int) -> bool:
    """Return whether a step is one of every `every` steps; 0 is never due."""
    return every > 0 and step % every == 0
