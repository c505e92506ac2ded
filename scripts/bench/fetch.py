#!/usr/bin/env python3
"""Measure fetch on a file of real posts: seconds and memory, for the file alone and read as ten months.

    scripts/bench/fetch.py --posts PATH/reddit_posts_2013.parquet [--against ANOTHER_CHECKOUT]

With --against, another checkout of redditgen takes turns, so that both meet the same noise. Exits 1 where a bound is
missed.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parents[2]
MONTHS = 10

SECONDS = 3.0  # for the file alone
PEAK = 1.1e9  # bytes, for both


@dataclass(frozen=True)
class Measured:
    seconds: float
    peak: int


def run(checkout: Path, source: Path, out: Path) -> Measured:
    """One fetch with the report's parameters, in a process of its own."""
    command = [sys.executable, "-m", "redditgen", "fetch", "--from", str(source), "--out", str(out), "--overwrite"]
    started = time.monotonic()
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(checkout / "src")}) as process:
        peak, _ = wait(process)
        seconds = time.monotonic() - started
    if process.returncode:
        sys.exit(f"{checkout}: fetch ended with {process.returncode}")
    return Measured(seconds, peak)


def wait(process: "subprocess.Popen[Any]") -> tuple[int, float]:
    """Wait for a process: the most bytes of memory that it had, and its seconds of CPU."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024), usage.ru_utime + usage.ru_stime


def report(name: str, runs: Sequence[Measured]) -> None:
    seconds = [measured.seconds for measured in runs]
    peak = max(measured.peak for measured in runs)
    print(f"{name}: {min(seconds):.2f} s at best, {statistics.median(seconds):.2f} s median, {peak / 1e6:.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--posts", type=Path, required=True)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "titles.csv"
        alone: list[Measured] = []
        others: list[Measured] = []
        for _ in range(options.runs):
            alone.append(run(HERE, options.posts, out))
            if options.against:
                others.append(run(options.against, options.posts, out))
        months = Path(folder) / "months"
        months.mkdir()
        for month in range(1, MONTHS + 1):
            (months / f"2013_{month:02}.parquet").symlink_to(options.posts.resolve())
        of_months = [run(HERE, months, out)]
    report("the file alone", alone)
    if others:
        report(f"the same by {options.against}", others)
    report(f"as {MONTHS} months", of_months)
    missed = min(measured.seconds for measured in alone) > SECONDS
    sys.exit(missed or max(measured.peak for measured in alone + of_months) > PEAK)


if __name__ == "__main__":
    main()
