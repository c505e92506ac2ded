#!/usr/bin/env python3
"""Measure encode beside the report's listing and plain spaCy: titles a second with start-up, and peak memory.

    scripts/bench/encode.py titles.csv --reference PATH [--titles 2000 --titles 16000] [--json]
    scripts/bench/encode.py posts.parquet --titles 16000 --titles 300000 --only redditgen

--reference is the report's encoder as a file, or its text (listing.py takes it from there); it runs as it is, on
today's spaCy and ray. `nlp.pipe` is the loop that the documentation of spaCy shows, on all components, in one process
and in as many as there are cores, each with its share of the titles and one thread, which is the fastest. Memory is the
sum of the proportional set sizes of a peer's processes, sampled; the largest resident size of its first process and of
its largest other one stand beside it.
"""

import argparse
import csv
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import listing

from redditgen.files.tables import open_table

CORES = len(os.sched_getaffinity(0))
SAMPLED_EVERY = 0.25  # seconds
OURS, LISTING, ONE_PIPE, PIPES = "redditgen", "listing", "nlp.pipe, 1 process", f"nlp.pipe, {CORES} processes"

RUN_LISTING = """
import runpy, sys, ray
from redditgen.titles.spacy_keywords import find_installed_model
ray.init(include_dashboard=False, log_to_driver=False)
listing = runpy.run_path(sys.argv[1])
listing["encode_keywords"](
    sys.argv[2], model=find_installed_model("en_core_web_sm"), category_field="subreddit", title_field="title",
    out_path=sys.argv[3],
)
"""
RUN_PIPE = """
import csv, sys, spacy
from redditgen.titles.spacy_keywords import find_installed_model
number, of = map(int, sys.argv[2:])
with open(sys.argv[1], encoding="utf8", newline="") as file:
    titles = [row["title"] for row in csv.DictReader(file)][number::of]
for doc in spacy.load(find_installed_model("en_core_web_sm")).pipe(titles):
    pass
"""


@dataclass(frozen=True)
class Measured:
    peer: str
    titles: int
    seconds: float
    peak: int  # bytes, of all processes together
    first: int  # bytes, resident, of the first process
    worker: int  # bytes, resident, of the largest other one that ran Python

    @property
    def rate(self) -> float:
        return self.titles / self.seconds


class Watch(threading.Thread):
    """Samples the memory of processes and of all below them."""

    def __init__(self, processes: Sequence["subprocess.Popen[bytes]"]) -> None:
        super().__init__(daemon=True)
        self.roots = [process.pid for process in processes]
        self.peak = 0
        self.resident: dict[int, int] = {}
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(SAMPLED_EVERY):
            tree = list(below(self.roots))
            self.peak = max(self.peak, sum(kilobytes(pid, "smaps_rollup", "Pss:") for pid in tree) << 10)
            for pid in tree:
                self.resident[pid] = max(self.resident.get(pid, 0), kilobytes(pid, "status", "VmHWM:") << 10)

    @property
    def largest_worker(self) -> int:
        return max((size for pid, size in self.resident.items() if pid not in self.roots), default=0)


def below(roots: Iterable[int]) -> Iterable[int]:
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            behind_name = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(behind_name[1]), []).append(int(path.parent.name))
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        yield pid
        waiting += children.get(pid, [])


def kilobytes(pid: int, file: str, field: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(field)), 0)


def measure(peer: str, titles: int, *commands: Sequence[str | Path]) -> Measured:
    """Run commands at once, each in a process of its own, until all have ended."""
    started = time.monotonic()
    threads = {"OMP_NUM_THREADS": "1"} if peer in (ONE_PIPE, PIPES) else {}
    processes = [
        subprocess.Popen(command, env=os.environ | threads, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for command in commands
    ]
    watch = Watch(processes)
    watch.start()
    for process in processes:
        _, said = process.communicate()
        if process.returncode:
            sys.exit(f"{peer}: {said.decode()[-2000:]}")
    seconds = time.monotonic() - started
    watch.ended.set()
    watch.join()
    first = max(watch.resident.get(pid, 0) for pid in watch.roots)
    return Measured(peer, titles, seconds, watch.peak, first, watch.largest_worker)


def peers(source: Path, folder: Path, reference: Path | None) -> dict[str, Callable[[int], Measured]]:
    python = sys.executable
    out = folder / "out.txt"

    def pipe(number: int, of: int) -> list[str | Path]:
        return [python, "-c", RUN_PIPE, source, str(number), str(of)]

    there: dict[str, Callable[[int], Measured]] = {
        OURS: lambda n: measure(
            OURS, n, [python, "-m", "redditgen", "encode", source, "--out", out, "--overwrite", "--seed", "1"]
        ),
        ONE_PIPE: lambda n: measure(ONE_PIPE, n, pipe(0, 1)),
        PIPES: lambda n: measure(PIPES, n, *(pipe(number, CORES) for number in range(CORES))),
    }
    if reference:
        there[LISTING] = lambda n: measure(
            LISTING, n, [python, "-W", "ignore", "-c", RUN_LISTING, reference, source, out]
        )
    return there


def cut(titles: Path, count: int, out: Path) -> int:
    """The first titles as a CSV; how many there are."""
    with open_table(titles, made_by="") as posts, out.open("w", encoding="utf8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("subreddit", "title"))
        there = list(itertools.islice(posts.rows(("subreddit", "title")), count))
        rows.writerows(there)
    return len(there)


def shown(results: Sequence[Measured]) -> str:
    lines = [f"{'':<24}{'titles':>8}{'s':>8}{'titles/s':>10}{'of listing':>11}{'GB':>7}{'first':>7}{'worker':>7}"]
    listed = {result.titles: result.rate for result in results if result.peer == LISTING}
    for one in results:
        times = f"{one.rate / listed[one.titles]:.2f}" if one.titles in listed else ""
        gigabytes = "".join(f"{size / 1e9:>7.2f}" for size in (one.peak, one.first, one.worker))
        lines.append(f"{one.peer:<24}{one.titles:>8}{one.seconds:>8.1f}{one.rate:>10.0f}{times:>11}{gigabytes}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path)
    parser.add_argument("--reference", type=Path)
    parser.add_argument("--titles", type=int, action="append")
    parser.add_argument("--only", action="append", help="peers to measure")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as name:
        source = Path(name, "titles.csv")
        reference = options.reference and listing.encoder_file(options.reference, Path(name))
        for count in options.titles or (2000, 16000):
            there = cut(options.input, count, source)
            for peer, run in peers(source, Path(name), reference).items():
                if not options.only or peer in options.only:
                    results.append(run(there))
                    print(shown(results[-1:]), file=sys.stderr)
    print(json.dumps([asdict(result) for result in results], indent=2) if options.json else shown(results))


if __name__ == "__main__":
    main()
