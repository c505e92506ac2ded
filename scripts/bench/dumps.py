#!/usr/bin/env python3
"""Measure the import of a monthly dump: rows a second and memory, beside a prototype's, and what a kill leaves.

    scripts/bench/dumps.py --prototype PATH/zrobust.py

Makes a synthetic dump, with a window of 2 GiB and lines as long and about as varied as Reddit's, in a temporary folder.
The prototype is started there as `zrobust.py bytesio DUMP` and has to print `rows/s=NUMBER`. Exits 1 where a bound is
missed.
"""

import argparse
import hashlib
import itertools
import json
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard
from fetch import wait

SHARE = 0.9  # of the prototype's rows a second
PEAK = 3e9  # bytes

WORDS = 30_000
# What all or most lines of RS_2019-08 say alike.
ALIKE: dict[str, Any] = {
    **dict.fromkeys(("archived", "contest_mode", "hidden", "hide_score", "is_meta", "is_video", "locked"), False),
    **dict.fromkeys(("is_original_content", "author_patreon_flair", "pinned", "quarantine", "spoiler"), False),
    **dict.fromkeys(("can_gild", "is_crosspostable", "is_robot_indexable", "no_follow", "send_replies"), True),
    **dict.fromkeys(("author_flair_css_class", "author_flair_text", "category"), None),
    **dict.fromkeys(("content_categories", "distinguished", "link_flair_css_class", "media", "removal_reason"), None),
    **dict.fromkeys(("media_only", "stickied", "is_reddit_media_domain"), False),
    **dict.fromkeys(("secure_media", "suggested_sort", "view_count"), None),
    **{key: [] for key in ("all_awardings", "author_flair_richtext", "link_flair_richtext", "steward_reports")},
    **{key: {} for key in ("gildings", "media_embed", "secure_media_embed")},
    **dict.fromkeys(("author_flair_type", "link_flair_type"), "text"),
    **dict.fromkeys(("parent_whitelist_status", "whitelist_status"), "all_ads"),
    "link_flair_background_color": "",
    "link_flair_text_color": "dark",
    "post_hint": "image",
    "pwls": 6,
    "subreddit_type": "public",
    "thumbnail_height": 140,
    "thumbnail_width": 140,
    "total_awards_received": 0,
    "wls": 6,
}

IMPORT = """
import sys, time
from pathlib import Path
from redditgen.fetch.dumps.import_dump import import_dump
start = time.perf_counter()
posts = import_dump(Path(sys.argv[1]), Path(sys.argv[2])).counts.posts
print(f"posts={posts} rows/s={posts / (time.perf_counter() - start):.0f}")
"""


@dataclass(frozen=True)
class Run:
    rows_a_second: float
    peak: int
    """Bytes."""
    cpu: float
    """Seconds."""


class Writer:
    """Makes up posts."""

    def __init__(self) -> None:
        self._rng = random.Random(0)
        letters = "etaoinshrdlucmfwypvbgkqjxz"
        weights = range(len(letters), 0, -1)
        self._words = ["".join(self._rng.choices(letters, weights, k=self._rng.randint(2, 10))) for _ in range(WORDS)]
        self._often = list(itertools.accumulate(1 / (rank + 5) for rank in range(WORDS)))  # Zipf's law

    def _some(self, number: int) -> str:
        return " ".join(self._rng.choices(self._words, cum_weights=self._often, k=number))

    def line(self, number: int) -> bytes:
        rng, subreddit, digits = self._rng, self._some(1), f"{self._rng.getrandbits(64):016x}"
        created = 1564617600 + number
        image = {
            "url": f"https://preview.redd.it/{digits}.jpg?auto=webp&s={digits[::-1]}",
            "width": rng.randint(1, 4000),
        }
        post = ALIKE | {
            "id": f"{number:06x}",
            "subreddit": subreddit,
            "subreddit_id": f"t5_{digits[:5]}",
            "title": self._some(rng.randint(3, 18)),
            "author": self._some(1) + digits[:3],
            "author_fullname": f"t2_{digits[3:9]}",
            "score": int(rng.paretovariate(1)),
            "num_comments": int(rng.paretovariate(1)),
            "created_utc": created if number % 4 else str(created),
            "retrieved_on": 1570000000 + number,
            "over_18": rng.random() < 0.1,
            "is_self": rng.random() < 0.4,
            "domain": f"{self._some(1)}.com",
            "selftext": self._some(rng.randint(0, 40)),
            "permalink": f"/r/{subreddit}/comments/{number:06x}/",
            "url": f"https://i.redd.it/{digits}.jpg",
            "thumbnail": f"https://b.thumbs.redditmedia.com/{digits}{digits[::-1]}.jpg",
            "preview": {"enabled": True, "images": [{"id": digits, "source": image, "variants": {}}]},
        }
        return json.dumps(post, separators=(",", ":")).encode() + b"\n"

    def lines(self, total: int) -> Iterator[bytes]:
        """Some lines at a time, until there are `total` bytes."""
        for start in itertools.count(step=1000):
            if total <= 0:
                return
            lines = b"".join(self.line(start + number) for number in range(1000))
            total -= len(lines)
            yield lines


def make(path: Path, total: int) -> None:
    # 3 is the level of zstd -3; --long=31 is what Reddit's dumps are packed with.
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=31, enable_ldm=True)
    compressor = zstandard.ZstdCompressor(compression_params=parameters)
    with path.open("wb") as file, compressor.stream_writer(file) as packed:
        for lines in Writer().lines(total):
            packed.write(lines)


def measured(command: Sequence[object], folder: Path) -> Run:
    with subprocess.Popen([*map(str, command)], cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        output = process.stdout.read()
        peak, cpu = wait(process)
    found = re.search(r"rows/s=(\d+)", output)
    if process.returncode or not found:
        raise SystemExit(f"failed: {command}: {output}")
    return Run(int(found[1]), peak, cpu)


def importing(dump: Path, cache: Path) -> list[object]:
    return [sys.executable, "-c", IMPORT, dump, cache]


def survives_a_kill(dump: Path, folder: Path, wanted: Path) -> bool:
    """Whether an import killed halfway, and started again, ends as `wanted` did."""
    cache = folder / "killed"
    with subprocess.Popen([*map(str, importing(dump, cache))], stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and written(cache) < wanted.stat().st_size / 2:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    print(f"killed after {written(cache)} bytes of {wanted.stat().st_size}: {names(cache)}")
    measured(importing(dump, cache), folder)
    print(f"started again: {names(cache)}")
    return names(cache) == names(wanted.parent) and digest(cache / wanted.name) == digest(wanted)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def written(folder: Path) -> int:
    """Bytes of the Parquet so far."""
    return sum(path.stat().st_size for path in folder.glob(".*.tmp"))


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def show(name: str, run: Run) -> None:
    print(
        f"{name:10} {run.rows_a_second:9,.0f} rows/s, peak {run.peak / 1e9:.2f} GB, {run.cpu:.1f} s of CPU", flush=True
    )


def bench(dump: Path, folder: Path, prototype: Path | None, rounds: int) -> bool:
    """Whether all bounds hold."""
    (folder / "zst").mkdir()  # where the prototype writes
    theirs, ours = [], []
    for number in range(rounds):
        if prototype:
            theirs.append(measured([sys.executable, prototype.resolve(), "bytesio", dump], folder))
            show("prototype", theirs[-1])
        ours.append(measured(importing(dump, folder / f"round{number}"), folder))
        show("redditgen", ours[-1])
    parquet = folder / "round0" / dump.with_suffix(".parquet").name
    holds = [survives_a_kill(dump, folder, parquet), max(run.peak for run in ours) <= PEAK]
    print(f"the same Parquet after a kill: {holds[0]}; at most {PEAK / 1e9:.0f} GB: {holds[1]}")
    if theirs:
        share = max(run.rows_a_second for run in ours) / max(run.rows_a_second for run in theirs)
        holds.append(share >= SHARE)
        print(f"{share:.2f} of the prototype's rows/s, best of {rounds} each; at least {SHARE}: {holds[-1]}")
    return all(holds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prototype", type=Path)
    parser.add_argument("--megabytes", type=int, default=2200, help="of the dump, unpacked")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    parser.add_argument("--make", type=Path, help="only write a dump to this file")
    options = parser.parse_args()

    if options.make:
        make(options.make, options.megabytes * 10**6)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        dump = Path(name).resolve() / "RS_2019-08.zst"
        # In a process of its own: its peak of memory would count as that of those started after it.
        command = [sys.executable, __file__, "--make", dump, "--megabytes", str(options.megabytes)]
        subprocess.run(list(map(str, command)), check=True)
        print(f"dump: {options.megabytes} MB unpacked, {dump.stat().st_size / 1e6:.0f} MB packed", flush=True)
        holds = bench(dump, dump.parent, options.prototype, options.rounds)
    raise SystemExit(0 if holds else 1)


if __name__ == "__main__":
    main()
