#!/usr/bin/env python3
"""Measure how much of what a training on titles computes is padding, by epoch and batch size.

    scripts/bench/padding.py titles.csv... [--model models/mini] [--keywords] [--json]

A CSV with columns `subreddit` and `title` makes records of both; any other one a record without marks of each row's
first cell. --keywords adds up to three words of each title to its record. Compared are batches in random order, as they
would be padded without sorting, and those that finetune makes.
"""

import argparse
import csv
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import numpy as np

from redditgen.engines.data.batches import batches_by_length, shuffle_into_pools
from redditgen.engines.data.examples import tokenize_records
from redditgen.gpt2.model_dir import ModelDir
from redditgen.gpt2.run_info import COMPACT_TOKENS
from redditgen.titles.keyword_draws import draw_keywords
from redditgen.titles.keywords import normalise_category
from redditgen.titles.record import Record

EPOCHS = 3
SIZES = (8, 32, 64)


@dataclass(frozen=True)
class Padding:
    titles: str
    records: int
    tokens: float  # of a record, the mean
    size: int  # of a batch
    shuffled: float  # share of the positions computed that are padding
    ours: float  # the same of the worst epoch


def records(path: Path, with_keywords: bool) -> Iterator[Record]:
    with path.open(encoding="utf8", newline="") as file:
        rows = csv.reader(file)
        first = next(rows)
        if {"subreddit", "title"} <= set(first):
            for row in rows:
                cells = dict(zip(first, row, strict=True))
                words = draw_keywords(Random(cells["title"]), cells["title"].split(), 0, 3) if with_keywords else None
                yield Record(category=normalise_category(cells["subreddit"]), keywords=words, title=cells["title"])
            return
        for title, *_ in (first, *rows):
            yield Record(title=title, has_sections=False)


def share(lengths: np.ndarray, made: list[np.ndarray]) -> float:
    inputs = lengths - 1  # the last token is only a target
    computed = sum(len(batch) * int(inputs[batch].max()) for batch in made)
    return 1 - int(inputs.sum()) / computed


def epoch(lengths: np.ndarray, size: int, number: int) -> list[np.ndarray]:
    order = shuffle_into_pools(len(lengths), size, np.random.default_rng([0, number]))
    rng = np.random.default_rng
    return [
        pool[cut]
        for at, pool in enumerate(order)
        for cut in batches_by_length(lengths[pool], size, rng([0, number, at]))
    ]


def measure(path: Path, model: ModelDir, with_keywords: bool) -> Iterator[Padding]:
    context = model.hyperparameters().n_ctx
    lengths = tokenize_records(
        records(path, with_keywords), model.tokenizer(), COMPACT_TOKENS, context
    ).sequences.lengths
    shuffled = np.random.default_rng(0).permutation(len(lengths))
    for size in SIZES:
        yield Padding(
            titles=path.name,
            records=len(lengths),
            tokens=float(lengths.mean()),
            size=size,
            shuffled=share(lengths, [shuffled[at : at + size] for at in range(0, len(shuffled), size)]),
            ours=max(share(lengths, epoch(lengths, size, number)) for number in range(EPOCHS)),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("titles", type=Path, nargs="+")
    parser.add_argument("--model", type=Path, default=Path("models/mini"), help="folder of the tokenizer")
    parser.add_argument("--keywords", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = [one for path in options.titles for one in measure(path, ModelDir(options.model), options.keywords)]
    if options.json:
        print(json.dumps([asdict(one) for one in found]))
        return
    print(f"{'titles':28} {'records':>8} {'tokens':>7} {'batch':>6} {'shuffled':>9} {'ours':>6}")
    for one in found:
        print(f"{one.titles:28} {one.records:8,} {one.tokens:7.1f} {one.size:6} {one.shuffled:9.1%} {one.ours:6.1%}")


if __name__ == "__main__":
    main()
