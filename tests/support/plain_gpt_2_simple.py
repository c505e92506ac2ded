"""gpt-2-simple as its README shows it, without redditgen, run by a Python 3.7 that has it.

    plain_gpt_2_simple.py finetune DATASET      trains run `plain` of models/124M for 3 steps
    plain_gpt_2_simple.py logits RUN TOKENS     restores a run, writes its logits of a JSON list of tokens to logits.npy

Both in the working folder, where models/ and checkpoint/ are.
"""

import json
import sys
from pathlib import Path

import gpt_2_simple as gpt2
import numpy as np
import tensorflow as tf
from gpt_2_simple.src import model


def finetune(dataset: str) -> None:
    sess = gpt2.start_tf_sess()
    gpt2.finetune(sess, dataset, model_name="124M", steps=3, run_name="plain", learning_rate=0.01, sample_length=10)


def logits(run: str, tokens: str) -> None:
    sess = gpt2.start_tf_sess()
    gpt2.load_gpt2(sess, run_name=run)
    hparams = model.default_hparams()
    with Path("checkpoint", run, "hparams.json").open() as file:
        hparams.override_from_dict(json.load(file))
    found = model.model(hparams=hparams, X=tf.constant([json.loads(tokens)]), reuse=True)["logits"]
    np.save("logits.npy", sess.run(found))


if __name__ == "__main__":
    if sys.argv[1] == "finetune":
        finetune(sys.argv[2])
    else:
        logits(sys.argv[2], sys.argv[3])
