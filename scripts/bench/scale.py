#!/usr/bin/env python3
"""Compute what many titles cost in each stage, on one machine and on a ray cluster, from measured rates.

    scripts/bench/scale.py [--titles 100000000] [--nodes 32 --cores 2] [--RATE FIGURE ...]

Nothing is run: each rate is a figure that another command measured on two cores (--help names it), and time is the
number of titles over the rate. A cluster's nodes are taken to be like that machine. They share the work without loss,
but for finetune, whose nodes send each other the gradients after each step: twice their size at the network's speed.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

from redditgen.engines.base import BLOCKS_AT_ONCE

MEASURED_CORES = 2
REPEAT = 3  # records of a title, encode's default
BATCH = 32  # records a step and node, finetune's default
STEPS = 1500  # after which the README's figures hold

MODELS = {"mini": 5.5e6, "124M": 124e6}  # parameters

RATES = {
    "fetch": (862_000, "posts a second, of ten times 1.13 million (scripts/bench/fetch.py --posts ...)"),
    "encode": (768, "titles a second, start-up included (scripts/bench/encode.py titles.csv --reference ...)"),
    "read": (12_000, "records a second, of 300,000, that finetune reads before it learns (it says so itself)"),
    "mini": (
        230,
        "records a second that it learns (scripts/bench/finetune.py ... --model mini --loss-on record)",
    ),
    "124M": (
        19.4,
        "records a second that it learns (scripts/bench/finetune.py ... --model 124M --loss-on record)",
    ),
    "generate": (1_041, "titles a second of mini, all filters on (scripts/bench/generate.py --run ... --n 10000)"),
    "network": (125e6, "bytes a second between nodes; not measured: 1 Gbit/s"),
}
SIZES = {
    "csv-bytes": (71.4, "bytes a title of fetch's CSV (ls -l, of 1.08 million)"),
    "encoded-bytes": (329, "bytes a title of encoded text, three records each (ls -l, of 16,000)"),
    "dynamic-bytes": (180, "bytes a title of encode --dynamic's JSON lines (ls -l, of 16,000)"),
    "index-bytes": (147, "bytes a title of the index of training titles (ls -l, of 200,000)"),
    "generated-bytes": (213, "bytes a title of generate's JSON lines (ls -l, of 300)"),
    "memory-bytes": (
        490,
        "bytes of memory a title, three records each: finetune's peak with 200,000 less that with 50,000",
    ),
}


@dataclass(frozen=True)
class Stage:
    name: str
    alone: float  # seconds on the machine that was measured
    shared: float | None  # seconds on the cluster; None where one machine does it
    disk: float | None = None  # bytes that it writes

    def row(self) -> str:
        cells = (self.name, time(self.alone), time(self.shared), size(self.disk) if self.disk else "")
        return f"| {' | '.join(cells)} |"


def main() -> None:
    asked = parsed()
    print(f"{asked['titles']:,.0f} titles; one machine of {MEASURED_CORES} cores; {asked['nodes']} x {asked['cores']}")
    print("\n| stage | one machine | cluster | disk |\n| --- | --- | --- | --- |")
    for stage in (*data(asked), *learning(asked), writing(asked)):
        print(stage.row())
    held, index = (size(asked["titles"] * asked[name]) for name in ("memory-bytes", "index-bytes"))
    print(f"\nmemory beside the model's: finetune {held}; generate and evaluate {index}")


def data(asked: dict[str, float]) -> Iterator[Stage]:
    titles, machines = asked["titles"], asked["nodes"] * asked["cores"] / MEASURED_CORES
    yield Stage("fetch", titles / asked["fetch"], None, titles * asked["csv-bytes"])
    encoding = titles / asked["encode"]
    yield Stage("encode", encoding, encoding / machines, titles * asked["encoded-bytes"])
    yield Stage("encode --dynamic", encoding, encoding / machines, titles * asked["dynamic-bytes"])


def learning(asked: dict[str, float]) -> Iterator[Stage]:
    titles, nodes = asked["titles"], asked["nodes"]
    yield Stage("finetune: reading", titles * REPEAT / asked["read"], None, titles * asked["index-bytes"])
    for model, parameters in MODELS.items():
        rate = asked[model] * asked["cores"] / MEASURED_CORES
        exchange = 2 * 4 * parameters / asked["network"]  # gradients in float32
        together = nodes * BATCH / (BATCH / rate + exchange)
        saved = 3 * 4 * parameters  # the weights, and Adam's two means of each
        alone = asked[model]
        yield Stage(f"finetune: {model}, {STEPS:,} steps", STEPS * BATCH / alone, STEPS * BATCH / together, saved)
        yield Stage(f"finetune: {model}, each title once", titles / alone, titles / together, saved)


def writing(asked: dict[str, float]) -> Stage:
    alone = asked["titles"] / asked["generate"]
    workers = min(BLOCKS_AT_ONCE, asked["nodes"] * asked["cores"])
    return Stage("generate: mini", alone, alone * MEASURED_CORES / workers, asked["titles"] * asked["generated-bytes"])


def time(seconds: float | None) -> str:
    if seconds is None:
        return "the same"
    for unit, length, most in (("s", 1, 120), ("min", 60, 120), ("h", 3600, 48), ("days", 86400, 1000)):
        if seconds < most * length:
            return f"{seconds / length:.{0 if seconds >= 10 * length else 1}f} {unit}"
    return f"{seconds / 86400 / 365:.1f} years"


def size(count: float) -> str:
    unit, length = ("GB", 1e9) if count >= 1e9 else ("MB", 1e6)
    return f"{count / length:.{0 if count >= 10 * length else 1}f} {unit}"


def parsed() -> dict[str, float]:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--titles", type=int, default=100_000_000, help="how many")
    parser.add_argument("--nodes", type=int, default=32, help="of the cluster")
    parser.add_argument("--cores", type=int, default=2, help="of each node")
    for name, (figure, meaning) in (RATES | SIZES).items():
        parser.add_argument(f"--{name}", type=float, default=figure, help=meaning, dest=name)
    return vars(parser.parse_args())


if __name__ == "__main__":
    main()
