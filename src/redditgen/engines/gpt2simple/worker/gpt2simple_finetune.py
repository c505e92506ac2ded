"""gpt-2-simple's finetuning, seen from inside through the functions that it calls; part of gpt2simple_worker.py.

Reads tokens.npz (the chunks of the training text) and held_out.npz (rows to measure on). What is saved lies in
checkpoint/run/ and samples/run/ until the parent moves it.
Events: {step, loss, val}, {saved}, {sampled}.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

NEVER = 10**9  # steps; upstream has no 0 for "never"


class Failure(Exception):
    """What went wrong, in a line for the user."""


def windows(chunks: list[np.ndarray], count: int, length: int, seed: int, step: int) -> list[np.ndarray]:
    """The windows of a step, those that redditgen.gpt2.windows.Stream draws for the torch engine."""
    rng = random.Random(f"{seed}:{step}")
    ends = list(accumulate(max(0, len(chunk) - length + 1) for chunk in chunks))
    rows = []
    for _ in range(count):
        place = rng.randrange(ends[-1])
        number = bisect_right(ends, place)
        start = place - (ends[number - 1] if number else 0)
        rows.append(chunks[number][start : start + length])
    return rows


class HeldOut:
    """Rows to measure on, and their loss as redditgen.gpt2.training.evaluate defines it."""

    def __init__(self, arrays: Any, hparams: Any, tokens_at_once: int) -> None:
        self.ids, self.starts = arrays["ids"], arrays["starts"]
        self.title_starts, self.title_ends = arrays["title_starts"], arrays["title_ends"]
        self.characters = max(1, int(arrays["title_chars"].sum()))
        self.hparams, self.tokens_at_once = hparams, tokens_at_once
        self.graph: Any = None

    def __len__(self) -> int:
        return len(self.starts) - 1

    def measure(self, sess: Any) -> tuple[float, float]:
        """Nats a token, and bits a character of the titles."""
        if self.graph is None:
            self.graph = self._built()
        context, losses = self.graph
        nats = title_nats = 0.0
        tokens = 0
        for indices in self.blocks():
            block, counts, in_title = self.padded(indices)
            found = sess.run(losses, feed_dict={context: block}).astype(np.float64)
            nats += found[counts].sum()
            title_nats += found[counts & in_title].sum()
            tokens += int(counts.sum())
        return float(nats / tokens), float(title_nats / math.log(2) / self.characters)

    def blocks(self) -> Iterator[list[int]]:
        """Rows of similar length, in blocks that with their padding hold no more than `tokens_at_once`."""
        lengths = np.diff(self.starts)
        block: list[int] = []
        for index in np.argsort(lengths, kind="stable").tolist():
            if block and (len(block) + 1) * lengths[index] > self.tokens_at_once:
                yield block
                block = []
            block.append(index)
        if block:
            yield block

    def padded(self, indices: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A block of rows, which of the tokens behind each row's first are its own, and which its title's."""
        longest = max(int(self.starts[index + 1] - self.starts[index]) for index in indices)
        block = np.zeros((len(indices), longest), dtype=np.int32)
        places = np.arange(1, longest)
        counts, in_title = np.zeros((2, len(indices), longest - 1), dtype=bool)
        for row, index in enumerate(indices):
            ids = self.ids[self.starts[index] : self.starts[index + 1]]
            block[row, : len(ids)] = ids
            counts[row] = places < len(ids)
            in_title[row] = (places >= self.title_starts[index]) & (places < self.title_ends[index])
        return block, counts, in_title

    def _built(self) -> tuple[Any, Any]:
        import tensorflow as tf
        from gpt_2_simple.src import model

        context = tf.compat.v1.placeholder(tf.int32, [None, None])
        logits = model.model(hparams=self.hparams, X=context, reuse=tf.compat.v1.AUTO_REUSE)["logits"]
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=context[:, 1:], logits=logits[:, :-1])
        return context, losses


def finetune(job: dict[str, Any], send: Callable[..., None], asked_to_stop: Callable[[], bool]) -> None:
    """Train with gpt_2.finetune until the job's last step, or until asked to stop, and save."""
    Finetuning(job, send, asked_to_stop).run()


class Finetuning:
    """A finetuning as seen from inside upstream's loop, through the functions that it calls there."""

    total_size = 0  # upstream's Sampler has it, to print it

    def __init__(self, job: dict[str, Any], send: Callable[..., None], asked_to_stop: Callable[[], bool]) -> None:
        self.job, self.send, self.asked_to_stop = job, send, asked_to_stop
        self.step = self.saved = job["start"]
        self.window = min(job["window"], job["hparams"]["n_ctx"])
        with np.load("tokens.npz", allow_pickle=False) as arrays:
            self.chunks = [arrays[f"arr_{number}"] for number in range(len(arrays.files))]
        with np.load("held_out.npz", allow_pickle=False) as arrays:
            tokens_at_once = job["options"]["batch_size"] * self.window  # as many as a batch of the training has
            self.held_out = HeldOut(arrays, SimpleNamespace(**job["hparams"]), tokens_at_once)
        self.rows: list[np.ndarray] = []
        self.has_sampled = False
        self.sess: Any = None
        self.writer: Any = None

    def run(self) -> None:
        import tensorflow as tf
        from gpt_2_simple import gpt_2

        tf.compat.v1.set_random_seed(self.job["seed"] % 2**31)
        self._mend(tf, gpt_2)
        if self.job["start"]:  # upstream reads there how far the run is
            Path("checkpoint/run").mkdir(parents=True)
            Path("checkpoint/run/counter").write_text(str(self.job["start"]))
        options = dict(self.job["options"])
        for name in ("sample_every", "save_every", "print_every"):
            options[name] = options[name] or NEVER
        if options["optimizer"] == "sgd":
            # Upstream adds up the gradients of the batches of a step and divides only the loss by their number. Adam
            # does not mind; plain descent would take steps that many times too large.
            options["learning_rate"] /= options["accumulate_gradients"]
        self.sess = gpt_2.start_tf_sess()
        try:
            gpt_2.finetune(
                self.sess,
                dataset="",
                steps=-1,  # until KeyboardInterrupt, see sample()
                # Of a model of any other name upstream would freeze the embeddings and the last norm, force
                # memory-saving gradients, and set accumulation to 1, whatever its arguments say.
                model_name="124M",
                model_dir="models",
                checkpoint_dir="checkpoint",
                run_name="run",
                restore_from="latest",
                max_checkpoints=0,  # the parent decides which ones stay
                **options,
            )
        finally:
            if self.writer:
                self.writer.close()  # upstream never does, and loses what it had not written yet

    def _mend(self, tf: Any, gpt_2: Any) -> None:
        # Upstream reads a text file in the locale's encoding and tokenizes it, `<|endoftext|>` always in pieces; then
        # it draws windows of 1,024 tokens, too many for small cards and for models with less context.
        gpt_2.load_dataset = lambda enc, path, combine: []
        gpt_2.Sampler = lambda chunks: self
        # Without accumulation upstream changes each weight as soon as its own gradient is there, while gradients of
        # earlier layers are still to be computed from that weight: they come out wrong, by tenths at high rates. So
        # none is given out before all are there, as TensorFlow's own optimizers do it (GATE_GRAPH).
        for module in (tf, gpt_2.memory_saving_gradients):
            module.gradients = _all_or_none(tf, module.gradients)
        tf.compat.v1.summary.FileWriter = self._file_writer(tf)
        tf.compat.v1.train.Saver = self._saver(tf)

    def sample(self, length: int) -> np.ndarray:
        """In place of Sampler.sample, which upstream asks for a window of 1,024 tokens or for a sample's 1."""
        if length == 1:
            # What a sample goes on from. Upstream takes a token from anywhere, hardly ever the start of a record.
            self.has_sampled = True
            return np.array(self.job["opening"], dtype=np.int32)
        if self.has_sampled:
            self.has_sampled = False
            self.send(sampled=self.step)
        if self.asked_to_stop() or self.step == self.job["end"]:
            # Upstream saves on it and returns. It has no other way to stop early. At the end of its own `steps` it
            # would not take the samples that are due there.
            raise KeyboardInterrupt
        if not self.rows:
            if self.step == 0 and len(self.held_out):
                self.send(step=0, loss=None, val=self._measured())
            options = self.job["options"]
            count = options["batch_size"] * options["accumulate_gradients"]
            self.rows = windows(self.chunks, count, self.window, self.job["seed"], self.step + 1)
        return self.rows.pop(0)

    def _file_writer(self, tf: Any) -> type:
        finetuning = self

        class FileWriter(tf.compat.v1.summary.FileWriter):  # type: ignore[misc]
            """Upstream calls its only method once after each step: that is where a step's loss is to be had."""

            def add_summary(self, summary: bytes, step: int) -> None:
                super().add_summary(summary, step)
                finetuning.writer = self
                [value] = tf.compat.v1.Summary.FromString(summary).value
                finetuning.has_learned(value.simple_value, step)

        return FileWriter

    def has_learned(self, loss: float, step: int) -> None:
        require_finite(loss, step)
        self.step = step
        every = self.job["val_every"]
        is_due = step == self.job["end"] or (every > 0 and step % every == 0)
        val = self._measured() if is_due and len(self.held_out) else None
        self.send(step=step, loss=loss, val=val)

    def _measured(self) -> tuple[float, float]:
        val = self.held_out.measure(self.sess)
        require_finite(val[0], self.step)
        return val

    def _saver(self, tf: Any) -> type:
        finetuning = self

        class Saver(tf.compat.v1.train.Saver):  # type: ignore[misc]
            """Says what it has saved, and saves no step twice and no broken weights."""

            def __init__(self, var_list: list[Any], **options: Any) -> None:
                super().__init__(var_list, **options)
                self.are_finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(var)) for var in var_list])

            def save(self, sess: Any, path: str, global_step: int) -> None:
                # Upstream saves at once, again, a run that goes on from a step at which saving is due, and a step that
                # is due and the last one twice.
                if global_step == finetuning.saved:
                    return
                # A step can break the weights and have had a good loss. Saved, they would take the good ones' place.
                require_finite(0.0 if sess.run(self.are_finite) else math.nan, global_step)
                super().save(sess, path, global_step=global_step)
                finetuning.saved = global_step
                finetuning.send(saved=global_step)

        return Saver


def _all_or_none(tf: Any, gradients: Callable[..., Any]) -> Callable[..., Any]:
    return lambda ys, xs: tf.tuple(gradients(ys, xs))


def require_finite(loss: float, step: int) -> None:
    if not math.isfinite(loss):
        raise Failure(f"diverged at step {step}: its loss is no number any more; lower --learning-rate")
