"""Finetunes with gpt-2-simple; part of gpt2simple_worker.py.

gpt_2.finetune runs unchanged, and functions that it calls are replaced with methods of Finetuning: the one that takes
the next window, the one that writes a step's loss for TensorBoard, and the one that saves a checkpoint. These choose
the windows, measure the held-out loss, stop the training and send events.

Reads tokens.npz (the training tokens, in chunks) and held_out.npz (the held-out records). Checkpoints are written to
checkpoint/run/ and samples to samples/run/, from where the parent moves them.

Events, in which `step`, `saved` and `sampled` are numbers of steps:

    {step, loss, val}    a step is done, with its loss in nats per token; `val` is the held-out loss [nats per token,
                         bits per character of the titles], or null where it is not due; before the first step of a new
                         run `step` is 0 and `loss` null
    {saved}              the checkpoint of this step is written
    {sampled}            the samples of this step are written
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

NEVER = 10**9  # steps; gpt-2-simple has no value for "never"


class Failure(Exception):
    """An error whose message, one line, is shown to the user as it is."""


def windows(chunks: list[np.ndarray], count: int, length: int, seed: int, step: int) -> list[np.ndarray]:
    """Return `count` windows of `length` tokens, which depend on the seed and the step alone.

    They are those that redditgen.engines.data.token_stream.TokenStream.windows returns in the torch engine.
    """
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
    """Held-out records, and their loss as redditgen.engines.pytorch.training.measure_held_out_loss defines it."""

    def __init__(self, arrays: Any, hparams: Any, tokens_at_once: int) -> None:
        self.ids, self.starts = arrays["ids"], arrays["starts"]
        self.title_starts, self.title_ends = arrays["title_starts"], arrays["title_ends"]
        self.characters = max(1, int(arrays["title_chars"].sum()))
        self.hparams, self.tokens_at_once = hparams, tokens_at_once
        self.graph: Any = None

    def __len__(self) -> int:
        return len(self.starts) - 1

    def measure(self, sess: Any) -> tuple[float, float]:
        """Return the loss in nats per token, and in bits per character of the titles."""
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
        """Yield blocks of rows of similar length: their indices, for at most `tokens_at_once` tokens with padding."""
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
        """Return a block of rows, and two masks of the tokens after each row's first one.

        The block is [rows, longest], padded with zeros. The masks are [rows, longest - 1]: the row's own tokens, which
        are not padding, and the tokens of its title.
        """
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
        """Add the loss to the graph; return its placeholder [rows, tokens] and the losses [rows, tokens - 1]."""
        import tensorflow as tf
        from gpt_2_simple.src import model

        context = tf.compat.v1.placeholder(tf.int32, [None, None])
        logits = model.model(hparams=self.hparams, X=context, reuse=tf.compat.v1.AUTO_REUSE)["logits"]
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=context[:, 1:], logits=logits[:, :-1])
        return context, losses


def finetune(job: dict[str, Any], send: Callable[..., None], asked_to_stop: Callable[[], bool]) -> None:
    """Train with gpt_2.finetune to the job's last step, or until asked to stop, and save a checkpoint."""
    Finetuning(job, send, asked_to_stop).run()


class Finetuning:
    """The state of a finetuning, and the methods that replace functions called by gpt_2.finetune."""

    total_size = 0  # an attribute of gpt-2-simple's Sampler, which gpt_2.finetune prints

    def __init__(self, job: dict[str, Any], send: Callable[..., None], asked_to_stop: Callable[[], bool]) -> None:
        self.job, self.send, self.asked_to_stop = job, send, asked_to_stop
        self.step = self.saved = job["start"]
        self.window = min(job["window"], job["hparams"]["n_ctx"])
        with np.load("tokens.npz", allow_pickle=False) as arrays:
            self.chunks = [arrays[f"arr_{number}"] for number in range(len(arrays.files))]
        with np.load("held_out.npz", allow_pickle=False) as arrays:
            tokens_at_once = job["options"]["batch_size"] * self.window  # as in a batch of the training
            self.held_out = HeldOut(arrays, SimpleNamespace(**job["hparams"]), tokens_at_once)
        self.rows: list[np.ndarray] = []
        self.has_sampled = False
        self.sess: Any = None
        self.writer: Any = None

    def run(self) -> None:
        """Train until `sample` raises KeyboardInterrupt, on which gpt_2.finetune saves and returns."""
        import tensorflow as tf
        from gpt_2_simple import gpt_2

        tf.compat.v1.set_random_seed(self.job["seed"] % 2**31)
        self._mend(tf, gpt_2)
        if self.job["start"]:  # gpt-2-simple reads the step of the run there
            Path("checkpoint/run").mkdir(parents=True)
            Path("checkpoint/run/counter").write_text(str(self.job["start"]))
        options = dict(self.job["options"])
        for name in ("sample_every", "save_every", "print_every"):
            options[name] = options[name] or NEVER
        if options["optimizer"] == "sgd":
            # gpt-2-simple sums the gradients of a step's batches and divides only the loss by their number. Adam is
            # not affected by the scale of a gradient; plain descent would take steps that are too large by this factor.
            options["learning_rate"] /= options["accumulate_gradients"]
        self.sess = gpt_2.start_tf_sess()
        try:
            gpt_2.finetune(
                self.sess,
                dataset="",
                steps=-1,  # until KeyboardInterrupt, which sample() raises
                # For a model with another name than this gpt-2-simple freezes the embeddings and the last norm, uses
                # memory-saving gradients, and sets accumulation to 1, whatever its arguments are.
                model_name="124M",
                model_dir="models",
                checkpoint_dir="checkpoint",
                run_name="run",
                restore_from="latest",
                max_checkpoints=0,  # keeps all; the parent decides which are deleted
                **options,
            )
        finally:
            if self.writer:
                self.writer.close()  # gpt-2-simple never closes it, and loses buffered events

    def _mend(self, tf: Any, gpt_2: Any) -> None:
        """Replace functions and classes that gpt_2.finetune uses."""
        # gpt-2-simple reads a text file in the locale's encoding and tokenizes it, where `<|endoftext|>` always becomes
        # several tokens. It then draws windows of 1,024 tokens, too many for small GPUs and for models with a smaller
        # context.
        gpt_2.load_dataset = lambda enc, path, combine: []
        gpt_2.Sampler = lambda chunks: self
        # Without accumulation gpt-2-simple changes each weight as soon as its gradient is computed, although gradients
        # of earlier layers are still to be computed from this weight. They become wrong, by tenths at high rates. So no
        # gradient is passed on before all are computed, as in TensorFlow's own optimizers (GATE_GRAPH).
        for module in (tf, gpt_2.memory_saving_gradients):
            module.gradients = _all_or_none(tf, module.gradients)
        tf.compat.v1.summary.FileWriter = self._file_writer(tf)
        tf.compat.v1.train.Saver = self._saver(tf)

    def sample(self, length: int) -> np.ndarray:
        """Return the next window, or the tokens with which samples begin. Replaces gpt-2-simple's Sampler.sample.

        gpt_2.finetune calls it with length 1,024 for a window of the training, and with length 1 before it samples.
        """
        if length == 1:
            # Samples continue these tokens. gpt-2-simple takes any token, which is hardly ever the start of a record.
            self.has_sampled = True
            return np.array(self.job["opening"], dtype=np.int32)
        if self.has_sampled:
            self.has_sampled = False
            self.send(sampled=self.step)
        if self.asked_to_stop() or self.step == self.job["end"]:
            # gpt_2.finetune saves on KeyboardInterrupt and returns; it has no other way to stop early. Its argument
            # `steps` is not used, since at the last step it would skip the samples that are due.
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
            """TensorBoard's writer, which gpt_2.finetune calls once after each step, with the step's loss."""

            def add_summary(self, summary: bytes, step: int) -> None:
                super().add_summary(summary, step)
                finetuning.writer = self
                [value] = tf.compat.v1.Summary.FromString(summary).value
                finetuning.has_learned(value.simple_value, step)

        return FileWriter

    def has_learned(self, loss: float, step: int) -> None:
        """Send the loss of a step that is done, and the held-out loss where it is due."""
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
            """TensorFlow's Saver, except that it sends an event, saves no step twice, and refuses infinite weights."""

            def __init__(self, var_list: list[Any], **options: Any) -> None:
                super().__init__(var_list, **options)
                self.are_finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(var)) for var in var_list])

            def save(self, sess: Any, path: str, global_step: int) -> None:
                # gpt-2-simple saves a continued run again at its first step where saving is due then, and saves the
                # last step twice where saving is due then.
                if global_step == finetuning.saved:
                    return
                # A step's loss is computed before its update, which may yield weights that are not finite. These must
                # not replace the good ones.
                require_finite(0.0 if sess.run(self.are_finite) else math.nan, global_step)
                super().save(sess, path, global_step=global_step)
                finetuning.saved = global_step
                finetuning.send(saved=global_step)

        return Saver


def _all_or_none(tf: Any, gradients: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that computes gradients as `gradients` does, none of them available before all are computed."""
    return lambda ys, xs: tf.tuple(gradients(ys, xs))


def require_finite(loss: float, step: int) -> None:
    """Raise Failure where the loss of a step is infinite or not a number."""
    if not math.isfinite(loss):
        raise Failure(f"diverged at step {step}: its loss is no number any more; lower --learning-rate")
