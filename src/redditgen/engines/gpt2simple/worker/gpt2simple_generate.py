"""gpt-2-simple's sampling, of any number of prompts in one graph; part of gpt2simple_worker.py.

Events: {texts: [[index of the prompt, token, token, ...], ...]}, each text without its prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

END = "<|endoftext|>"


def generate(job: dict[str, Any], send: Callable[..., None]) -> None:
    """Continue the job's prompts, in one graph made once.

    gpt_2.generate makes its graph anew on each call, which takes longer each time and never gives the memory back;
    it takes one prompt for all, and only as many samples as batches have rows. So the parts of it are called here.
    """
    import tensorflow as tf
    from gpt_2_simple import gpt_2
    from gpt_2_simple.src import encoder, sample

    tf.compat.v1.set_random_seed(job["seed"] % 2**31)  # before any operation is made, for their seeds follow from it
    sess = gpt_2.start_tf_sess()
    gpt_2.load_gpt2(sess, model_name="124M", model_dir="models")
    context, length = tf.compat.v1.placeholder(tf.int32, [None, None]), tf.compat.v1.placeholder(tf.int32, [])
    with stopping(tf, Ends(encoder.get_encoder("models/124M").decode), context):
        tokens = sample.sample_sequence(
            hparams=SimpleNamespace(**job["hparams"]), length=length, context=context, batch_size=None, **sampling(job)
        )
    sess.graph.finalize()  # from here on no operation can be added
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
    """Upstream's arguments: the likeliest token, for which it has no argument, is the best of one."""
    if job["temperature"] == 0:
        return {"temperature": 1, "top_k": 1}
    top_k = min(job["top_k"], job["hparams"]["n_vocab"])  # upstream fails for more
    return {"temperature": job["temperature"], "top_k": top_k, "top_p": job["top_p"]}


def of_one_length(prompts: list[list[int]], rows: range) -> Iterator[list[int]]:
    """Rows in groups whose prompts have one length each: upstream can't pad."""
    for length in sorted({len(prompts[row]) for row in rows}):
        yield [row for row in rows if len(prompts[row]) == length]


class Ends:
    """Follows rows token by token and knows when the end token stands in each, in pieces or not."""

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self.decode = decode
        self.tails: list[str] = []

    def are_missing(self, written: int, last: Any) -> bool:
        """Whether a row has no end yet; to be asked before the first token and after each, with every row's last."""
        if written == 0:
            self.tails = [""] * len(last)
        else:
            pairs = zip(self.tails, last.tolist())
            self.tails = [tail if END in tail else tail[1 - len(END) :] + self.decode([token]) for tail, token in pairs]
        return not all(END in tail for tail in self.tails)


@contextmanager
def stopping(tf: Any, ends: Ends, context: Any) -> Iterator[None]:
    """Let the loop of sample_sequence end when all rows have ended.

    Upstream's loop always goes on to the full length, and a title has a third of that. What a row has written behind
    its end is cut off anyway.
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
    """For the log: neither number grows with the texts."""
    operations = f"{len(sess.graph.get_operations())} operations in the graph"
    try:
        import resource
    except ImportError:  # on Windows
        return operations
    return f"{operations}, {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss} of memory at most (ru_maxrss)"
