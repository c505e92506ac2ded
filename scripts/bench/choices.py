#!/usr/bin/env python3
"""Held-out bits a character of titles after equal wall time, for what finetune could do by default.

    scripts/bench/choices.py titles.csv [--seconds 180] [--vocabulary FOLDER]

Trains mini on the record or on the title alone, and on three fixed draws of keywords or on new ones every epoch. With
--vocabulary, a folder with GPT-2's encoder.json and vocab.bpe, also a network of mini's shape with random weights and
that vocabulary, on compact and on literal record tokens, which mini's pretraining would decide. All are measured on the
same held-out records. The learning rate stays even, since nobody knows the last step; the time counts from the start of
the command.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from redditgen.files import bundled
from redditgen.gpt2.model_dir import ModelDir
from redditgen.gpt2.tokenizer import Tokenizer

MINI = "mini"
RANDOM = "gpt-2's vocabulary"


@dataclass(frozen=True)
class Choice:
    name: str
    model: str
    dataset: str
    options: tuple[str, ...] = ()


CHOICES = (
    Choice("record, three fixed draws", MINI, "fixed.txt", ("--loss-on=record",)),
    Choice("title alone, three fixed draws", MINI, "fixed.txt", ("--loss-on=title",)),
    Choice("record, new draws every epoch", MINI, "dynamic.jsonl", ("--loss-on=record",)),
    Choice("title alone, new draws every epoch", MINI, "dynamic.jsonl", ("--loss-on=title",)),
    Choice("compact record tokens", RANDOM, "fixed.txt", ("--record-tokens=compact",)),
    Choice("literal record tokens", RANDOM, "fixed.txt", ("--record-tokens=literal",)),
)


def redditgen(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "redditgen", *arguments], check=True, stderr=subprocess.DEVNULL)


def write_random(folder: Path, vocabulary: Path) -> None:
    """A base model of mini's shape with GPT-2's vocabulary, its weights as GPT-2's are before training."""
    tokenizer = Tokenizer.load(vocabulary)
    hyperparameters = dataclasses.replace(
        ModelDir(bundled.path("models/mini")).hyperparameters(), n_vocab=len(tokenizer)
    )
    rng = np.random.default_rng(0)
    tensors = {
        name: np.ones(shape, np.float32) if name.endswith("/g") else rng.normal(0, 0.02, shape).astype(np.float32)
        for name, shape in hyperparameters.tensor_shapes().items()
    }
    ModelDir(folder / RANDOM).write_base(hyperparameters, tokenizer, tensors)


def measured(choice: Choice, folder: Path, seconds: int) -> tuple[int, float]:
    """The step that a choice comes to in the time, and its held-out bits a character there."""
    run = choice.name.replace(" ", "-").replace(",", "")
    redditgen(
        "finetune",
        folder / choice.dataset,
        f"--model={choice.model}",
        f"--model-dir={folder}",
        f"--checkpoint-dir={folder / 'checkpoint'}",
        f"--run={run}",
        f"--val={folder / 'fixed.val.txt'}",
        f"--time-limit={seconds}s",
        *("--steps=1000000", "--sample-every=0", "--val-every=0", "--save-every=0"),
        *choice.options,
    )
    last = (folder / "checkpoint" / run / "metrics.jsonl").read_text(encoding="utf8").splitlines()[-1]
    report = json.loads(last)
    return report["step"], report["val_bits_per_char"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("titles", type=Path)
    parser.add_argument("--seconds", type=int, default=180)
    parser.add_argument("--vocabulary", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        redditgen("encode", options.titles, f"--out={folder / 'fixed.txt'}", "--split=val=0.02")
        redditgen("encode", options.titles, f"--out={folder / 'dynamic.jsonl'}", "--split=val=0.02", "--dynamic")
        if options.vocabulary:
            write_random(folder, options.vocabulary)
        print(f"{'after ' + str(options.seconds) + ' s':<38}{'steps':>7}{'held-out bits a character':>28}")
        for choice in CHOICES:
            if choice.model == MINI or options.vocabulary:
                step, bits = measured(choice, folder, options.seconds)
                print(f"{choice.name:<38}{step:>7}{bits:>28.4f}", flush=True)


if __name__ == "__main__":
    main()
