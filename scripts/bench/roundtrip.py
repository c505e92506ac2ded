#!/usr/bin/env python3
"""Count the titles that come back exactly from records: ours, and those of the report's own encoder and decoder.

    scripts/bench/roundtrip.py --titles reddit_titles.csv --titles posts.parquet
        [--reference REPORT.txt]

Ours go through `redditgen.titles.record` alone. With --reference, the report's text, its listings do the same: its
encoder's records of ready keywords go through files, as they do there. Exits 1 if one of ours is not equal.
"""

import argparse
import csv
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import listing
import pyarrow.parquet as pq

from redditgen.titles.record import Record, build, escape, parse

CATEGORY, KEYWORD = "category", "keyword"


def read_titles(path: Path) -> list[str]:
    """The titles of a Parquet file or a CSV with a column `title`, or of a CSV of one column without a header."""
    if path.suffix == ".parquet":
        titles: list[str] = pq.read_table(path, columns=["title"])["title"].to_pylist()
        return titles
    with path.open(encoding="utf8", newline="") as file:
        head, *rows = csv.reader(file)
    if "title" in head:
        return [row[head.index("title")] for row in rows]
    return [row[0] for row in (head, *rows)]


def ours(titles: Sequence[str], _folder: Path) -> list[str]:
    records = [Record(category=CATEGORY, keywords=KEYWORD, title=title) for title in titles]
    parsed = [parse(build(record)) for record in records]
    return [title for title, record, got in zip(titles, records, parsed, strict=True) if got == record]


def listings(report: Path) -> Callable[[Sequence[str], Path], list[str]]:
    """The listing's way: its encoder's records in a file, its decoder's titles in another."""
    with tempfile.TemporaryDirectory() as name:
        decode_file = listing.defined(listing.decoder_file(report, Path(name)))["decode_file"]
        fields = {f"{field}_field": field for field in ("category", "keywords", "title")}
        made = listing.encoder(listing.encoder_file(report, Path(name)), **fields, repeat=1, max_keywords=1)

    def back(titles: Sequence[str], folder: Path) -> list[str]:
        encoded, decoded = folder / "encoded.txt", folder / "decoded.txt"
        with encoded.open("w", encoding="utf8", errors="ignore") as file:
            for title in titles:
                file.writelines(made.generate_encoded_text({"category": CATEGORY, "keywords": KEYWORD, "title": title}))
        decode_file(str(encoded), str(decoded))
        return decoded.read_text(encoding="utf8").split("\n" + "=" * 20 + "\n")

    return back


def measure(name: str, way: Callable[[Sequence[str], Path], list[str]], titles: Sequence[str]) -> int:
    """Show how many titles come back exactly, and give how many do not."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        back = way(titles, Path(folder))
        seconds = time.perf_counter() - started
    equal = (Counter(titles) & Counter(back)).total()
    print(f"  {name:12} {equal:9,} equal, {len(titles) - equal:6,} not: {equal / len(titles):.4%}; {seconds:6.1f} s")
    return len(titles) - equal


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--titles", type=Path, action="append", required=True)
    parser.add_argument("--reference", type=Path, help="the report's text")
    options = parser.parse_args()
    lost = 0
    for path in options.titles:
        titles = read_titles(path)
        escaped = [title for title in titles if escape(title) != title]
        breaks = sum("\n" in title or "\r" in title for title in escaped)
        told = f"{len(escaped):,} hold markup or line breaks ({len(escaped) / len(titles):.1%}), {breaks:,} the latter"
        print(f"{path.name}: {len(titles):,} titles; {told}", flush=True)
        lost += measure("redditgen", ours, titles)
        if options.reference:
            measure("the listing", listings(options.reference), titles)
    sys.exit(1 if lost else 0)


if __name__ == "__main__":
    main()
