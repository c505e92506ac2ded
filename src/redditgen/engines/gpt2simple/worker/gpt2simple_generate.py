"""Samples texts with gpt-2-simple, for any number of prompts in one TensorFlow graph; part of gpt2simple_worker.py.

The graph is built once. Prompts are sampled in blocks of `batch_size`, within a block together with those of equal
length. The only event is {texts: [[index of the prompt, token, token, ...], ...]}, each text without its prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

END = "<|endoftext|>"


def generate(job: dict[str, Any], send: Callable[..., None]) -> None:
    """Continue the job's prompts in a single graph, and send their texts.

    This calls the parts of gpt_2.generate, which itself adds a new graph on each call, takes longer each time and never
    releases the memory. It also accepts only one prompt for all samples, and a number of samples that is a multiple of
    the batch size.
    """
    import tensorflow as tf
    from gpt_2_simple import gpt_2
    from gpt_2_simple.src import encoder, sample

    tf.compat.v1.set_random_seed(
        job["seed"] % 2**31
    )  # before any operation is added, since its seed derives from this one
    sess = gpt_2.start_tf_sess()
    gpt_2.load_gpt2(sess, model_name="124M", model_dir="models")
    context, length = tf.compat.v1.placeholder(tf.int32, [None, None]), tf.compat.v1.placeholder(tf.int32, [])
    with stopping(tf, Ends(encoder.get_encoder("models/124M").decode), context):
        tokens = sample.sample_sequence(
            hparams=SimpleNamespace(**job["hparams"]), length=length, context=context, batch_size=None, **sampling(job)
        )
    sess.graph.finalize()  # raises an error where an operation is added from here on
    for block in range(0, len(job["prompts"]), job["batch_size"]):
        last = min(block + job["batch_size"], len(job["prompts"]))
        for rows in of_one_length(job["prompts"], range(block, last)):
            prompts = [job["prompts"][row] for row in rows]
            room = job["hparams"]["n_ctx"] - len(prompts[0])
            found = sess.run(tokens, feed_dict={context: prompts, length: min(job["length"], room)})
            texts = found[:, len(prompts[0]) :].tolist()
            send(texts=[[row, *text] for row, text in zip(rows, texts)])
        print(f"{last} of {len(job['prompts'])} texts; {size(sess)}")


def sampling(job: dict[str, Any]) -> dict[str, Any]:
    """Return the sampling arguments of gpt-2-simple.

    It has no argument for always taking the likeliest token; top k 1 does that.
    """
    if job["temperature"] == 0:
        return {"temperature": 1, "top_k": 1}
    top_k = min(job["top_k"], job["hparams"]["n_vocab"])  # gpt-2-simple fails for a larger one
    return {"temperature": job["temperature"], "top_k": top_k, "top_p": job["top_p"]}


def of_one_length(prompts: list[list[int]], rows: range) -> Iterator[list[int]]:
    """Yield groups of rows whose prompts have equal lengths, since gpt-2-simple can't pad."""
    for length in sorted({len(prompts[row]) for row in rows}):
        yield [row for row in rows if len(prompts[row]) == length]


class Ends:
    """Follows the tokens of several rows, and finds the end token in each: as one token, or spelled by several."""

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self.decode = decode
        self.tails: list[str] = []

    def are_missing(self, written: int, last: Any) -> bool:
        """Whether any row lacks an end token yet.

        Call it before the first token and after each token: `written` is the number of tokens per row so far, and
        `last` holds the last token of each row.
        """
        if written == 0:
            self.tails = [""] * len(last)
        else:
            pairs = zip(self.tails, last.tolist())
            self.tails = [tail if END in tail else tail[1 - len(END) :] + self.decode([token]) for tail, token in pairs]
        return not all(END in tail for tail in self.tails)


@contextmanager
def stopping(tf: Any, ends: Ends, context: Any) -> Iterator[None]:
    """Make the loop of sample_sequence, built inside the block, stop when all rows have ended.

    gpt-2-simple's loop always continues to the full length, of which a title takes a third. The tokens that a row has
    after its end are cut off later.
    """
    while_loop = tf.while_loop

    def loop(cond: Any, body: Any, **options: Any) -> Any:
        def goes_on(past: Any, prev: Any, output: Any) -> Any:
            written = tf.shape(input=output)[1] - tf.shape(input=context)[1]
            return tf.ensure_shape(tf.compat.v1.py_func(ends.are_missing, [written, prev], tf.bool), [])

        return while_loop(cond=goes_on, body=body, **options)

    tf.while_loop = loop
    try:
        yield
    finally:
        tf.while_loop = while_loop


def size(sess: Any) -> str:
    """Return the sizes of graph and memory for the log, which shows that neither grows with the number of texts."""
    operations = f"{len(sess.graph.get_operations())} operations in the graph"
    try:
        import resource
    except ImportError:  # on Windows
        return operations
    return f"{operations}, {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss} of memory at most (ru_maxrss)"
