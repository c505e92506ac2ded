#!/usr/bin/env python3
"""Measure decode on a large file: rows a second and memory, beside a smaller file and the report's own decoder.

    scripts/bench/decode.py [--megabytes 1000] [--titles posts.parquet] [--reference REPORT.txt]

Makes encoded files in a temporary folder, of made-up titles or of --titles again and again. The report's decoder, taken
from the text of the report, loads a file whole, so it gets the smaller one. Exits 1 where a bound is missed.
"""

import argparse
import itertools
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import listing
from roundtrip import read_titles

from redditgen.files.sidecar import sidecar_path
from redditgen.titles.record import Record, build

GROWTH = 1.2  # of the peak, from the smaller file to the large one

# Not getrusage: its peak is inherited from the process that starts the measured one.
PEAK = """
finally:
    import pathlib
    print("VmHWM", pathlib.Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
"""
OURS = f"from redditgen.cli.app import main\ntry:\n    main(){PEAK}"
THEIRS = f"import sys\ntry:\n    import keyword_decode\n    keyword_decode.decode_file(*sys.argv[1:]){PEAK}"


@dataclass(frozen=True)
class Run:
    rows: int
    seconds: float
    peak: int
    """Bytes."""


def made_up() -> list[str]:
    rng = random.Random(0)
    words = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 10))) for _ in range(10_000)]
    return [" ".join(rng.choices(words, k=rng.randint(3, 18))) for _ in range(100_000)]


def make(path: Path, titles: Sequence[str], megabytes: int) -> None:
    rng = random.Random(0)
    with path.open("w", encoding="utf8", newline="\n") as file:
        for title in itertools.cycle(titles):
            words = title.split() or [""]
            drawn = " ".join(rng.choices(words, k=rng.randint(0, 3)))
            file.write(build(Record(category=words[0], keywords=drawn, title=title)) + "\n")
            if rng.random() < 0.001 and path.stat().st_size >= megabytes * 1_000_000:
                return


def measured(code: str, arguments: Sequence[object], folder: Path) -> tuple[float, int]:
    """Seconds and peak in bytes of a Python process."""
    started = time.perf_counter()
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    found = re.search(r"^VmHWM (\d+)$", done.stdout, re.MULTILINE)
    if done.returncode or not found:
        sys.exit(f"failed: {arguments}: {done.stderr}")
    return time.perf_counter() - started, int(found[1]) * 1024


def ours(encoded: Path, out: Path) -> Run:
    seconds, peak = measured(OURS, ["decode", encoded, "--out", out], encoded.parent)
    counts = json.loads(sidecar_path(out).read_text(encoding="utf8"))["counts"]
    return Run(counts["rows"], seconds, peak)


def theirs(encoded: Path, report: Path) -> Run:
    out = encoded.with_suffix(".listing.txt")
    listing.decoder_file(report, encoded.parent)
    seconds, peak = measured(THEIRS, [encoded, out], encoded.parent)
    with out.open(encoding="utf8", newline="\n") as file:
        rows = sum(line == "=" * 20 + "\n" for line in file)
    return Run(rows, seconds, peak)


def runs(folder: Path, small: int, large: int, titles: Sequence[str], report: Path | None) -> Iterator[tuple[str, Run]]:
    """What ran, on a file of how many MB, and what it took."""
    for megabytes in (small, large):
        encoded = folder / f"{megabytes}.txt"
        make(encoded, titles, megabytes)
        for suffix in (".txt", ".csv"):
            yield f"redditgen {suffix}, {megabytes} MB", ours(encoded, folder / f"decoded{megabytes}{suffix}")
        if report and megabytes == small:
            yield f"the listing, {megabytes} MB", theirs(encoded, report)
        encoded.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1000, help="of the large file")
    parser.add_argument("--small", type=int, default=100, help="megabytes of the smaller file")
    parser.add_argument("--titles", type=Path, help="CSV or Parquet with a column title")
    parser.add_argument("--reference", type=Path, help="the report's text")
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    options = parser.parse_args()
    titles = read_titles(options.titles) if options.titles else made_up()
    peaks = []
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name).resolve()
        for what, run in runs(folder, options.small, options.megabytes, titles, options.reference):
            speed, peak = run.rows / run.seconds, run.peak / 1e6
            print(
                f"{what:24} {run.rows:10,} rows {run.seconds:6.1f} s {speed:9,.0f} rows/s {peak:7,.0f} MB", flush=True
            )
            if what.startswith("redditgen"):
                peaks.append(run.peak)
    growth = max(peaks[2:]) / max(peaks[:2])
    print(f"peak {growth:.2f} times that of the smaller file; at most {GROWTH}: {growth <= GROWTH}")
    sys.exit(0 if growth <= GROWTH else 1)


if __name__ == "__main__":
    main()
