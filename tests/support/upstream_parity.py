"""Plain gpt-2-simple on TensorFlow 1.15: what test_parity.py compares with. Run by Python 3.7, without redditgen.

    python3.7 upstream_parity.py MODEL IN.npz OUT.npz

IN holds token rows, `row0`, `row1`, ..., and OUT the logits of each under the same name, [tokens, vocabulary]; and
`prompts` [rows, tokens], of which OUT holds the greedy continuations, [rows, 100].
"""

import json
import sys
from pathlib import Path

import gpt_2_simple as gpt2
import numpy as np
import tensorflow as tf
from gpt_2_simple.src import model, sample

LENGTH = 100


def main(folder: Path, given: str, out: str) -> None:
    session = gpt2.start_tf_sess()
    gpt2.load_gpt2(session, model_name=folder.name, model_dir=str(folder.parent))
    hparams = model.default_hparams()
    hparams.override_from_dict(json.loads((folder / "hparams.json").read_text()))
    context = tf.compat.v1.placeholder(tf.int32, [None, None])
    logits = model.model(hparams=hparams, X=context, reuse=True)["logits"]
    rows = dict(np.load(given))
    prompts = rows.pop("prompts")
    found = {name: session.run(logits, {context: [row]})[0] for name, row in rows.items()}
    context = tf.compat.v1.placeholder(tf.int32, [len(prompts), None])
    tokens = sample.sample_sequence(
        hparams=hparams, length=LENGTH, context=context, batch_size=len(prompts), temperature=1, top_k=1
    )
    found["prompts"] = session.run(tokens, {context: prompts})[:, prompts.shape[1] :]
    np.savez(out, **found)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
