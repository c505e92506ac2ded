#!/usr/bin/env python3
"""Count the titles that come back exactly from records: ours, and those of the report's own encoder and decoder.

    scripts/bench/roundtrip.py --titles reddit_titles.csv --titles posts.parquet
        [--reference REPORT.txt --reference-encoder keyword_encode.py]

Ours go through `redditgen.markup` alone. With --reference, the text of the report, its decoder is taken from there; its
encoder is given as a file. The records are made by the encoder's own code, which needs no spaCy where the keywords are
ready, and go through files, as they do there. Exits 1 if one of ours is not equal.
"""

import argparse
import csv
import re
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq

from redditgen.markup import Record, build, parse

# What the PDF, from which the report's text comes, did to the listing's lines.
REPAIRS = [
    ("```\n", ""),
    (r"single\nsection", "single section"),
    (r"\n {3}with open", "\n    with open"),
    (r"\nwith open", "\n    with open"),
    (r"\n for doc", "\n        for doc"),
    (r"\n f\.write", "\n            f.write"),
]
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


def decoder_of(report: Path) -> str:
    """The code of the report's decoder, which is the last thing in it."""
    text = report.read_text(encoding="utf8").replace("\r\n", "\n")
    code = text[text.rindex("\nkeyword_decode.py\n") :].split("\n", 2)[2]
    for wrong, right in REPAIRS:
        code = re.sub(wrong, right, code)
    return code


def ours(titles: Sequence[str], _folder: Path) -> list[str]:
    records = [Record(category=CATEGORY, keywords=KEYWORD, title=title) for title in titles]
    parsed = [parse(build(record)) for record in records]
    return [title for title, record, got in zip(titles, records, parsed, strict=True) if got == record]


def listings(report: Path, encoder: Path) -> Callable[[Sequence[str], Path], list[str]]:
    """The listing's way: its encoder's records in a file, its decoder's titles in another."""
    decode_file = _run(decoder_of(report))["decode_file"]
    made = _record_maker(_run(encoder.read_text(encoding="utf8")))

    def back(titles: Sequence[str], folder: Path) -> list[str]:
        encoded, decoded = folder / "encoded.txt", folder / "decoded.txt"
        with encoded.open("w", encoding="utf8", errors="ignore") as file:
            for title in titles:
                file.writelines(made.generate_encoded_text({"category": CATEGORY, "keywords": KEYWORD, "title": title}))
        decode_file(str(encoded), str(decoded))
        return decoded.read_text(encoding="utf8").split("\n" + "=" * 20 + "\n")

    return back


def _run(code: str) -> dict[str, Any]:
    """What a listing defines. spaCy and ray, which it imports, have no part in this."""
    fakes: dict[str, Any] = {"spacy": SimpleNamespace(), "ray": SimpleNamespace(remote=lambda **_: lambda made: made)}
    before = {name: sys.modules.get(name) for name in fakes}
    sys.modules.update(fakes)
    names: dict[str, Any] = {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            exec(code, names)
    finally:
        for name, module in before.items():
            sys.modules.pop(name) if module is None else sys.modules.update({name: module})
    return names


def _record_maker(listing: dict[str, Any]) -> Any:
    """Its encoder as it is behind the loading of spaCy, for records of a category, ready keywords and a title."""
    maker = listing["Encoder"].__new__(listing["Encoder"])
    fields = {"category_field": "category", "keywords_field": "keywords", "title_field": "title", "body_field": None}
    tokens = {"start_token": "<|startoftext|>", "end_token": "<|endoftext|>", "DELIMS": listing["DELIMS"]}
    vars(maker).update(fields, **tokens, nlp=None, pattern=re.compile(r"\W+"), PRONOUNS=listing["PRONOUNS"])
    vars(maker).update(keyword_gen="title", keyword_sep=",", repeat=1, max_keywords=1, keyword_length_max=20)
    return maker


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
    parser.add_argument("--reference", type=Path, help="the report's text, for its decoder")
    parser.add_argument("--reference-encoder", type=Path, help="the report's keyword_encode.py")
    options = parser.parse_args()
    if (options.reference is None) != (options.reference_encoder is None):
        parser.error("--reference and --reference-encoder go together")
    lost = 0
    for path in options.titles:
        titles = read_titles(path)
        print(f"{path.name}: {len(titles):,} titles", flush=True)
        lost += measure("redditgen", ours, titles)
        if options.reference:
            measure("the listing", listings(options.reference, options.reference_encoder), titles)
    sys.exit(1 if lost else 0)


if __name__ == "__main__":
    main()
