#!/usr/bin/env python3
"""Compare keywords with those of the report's listing, title by title: by --compat listing, and by default.

    scripts/bench/keywords.py titles.csv --reference PATH [--limit N] [--json]

--reference is the listing's keyword_encode.py as a file, or the report, beside which lies tools/reference_encoder.py
that rebuilds it. The listing runs as it is, title by title, but without ray. Exits 1 if --compat listing finds another
set for any title, or if a difference by default has no row in docs/encoding.md.
"""

import argparse
import csv
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import listing
import spacy
from spacy.tokens import Doc, Span, Token
from tqdm import tqdm

from redditgen.encode.command import encode
from redditgen.settings import EncodeSettings
from redditgen.titles.keywords import normalise_keyword, straighten_quotes
from redditgen.titles.record import escape
from redditgen.titles.spacy_keywords import find_installed_model

UNEQUAL_SHOWN = 10

ROWS = {
    "dashes": "punctuation inside a keyword becomes a dash",
    "symbols": "keywords without a letter or digit are out",
    "stop lemmas": "words whose lemma is a stop word are out",
    "stop phrases": "phrases of stop words, pronouns and punctuation are out",
    "proper nouns": "each proper noun is a keyword",
    "compounds": "compounds inside longer phrases are keywords",
    "other": "none of these",
}


@dataclass
class Counts:
    titles: int = 0
    equal: int = 0  # titles for which --compat listing finds the listing's set
    unequal: list[str] = field(default_factory=list)  # the first of the others
    differ: int = 0  # titles for which the default finds another set than the listing
    rows: Counter[str] = field(default_factory=Counter)  # a title counts in each row that changes it
    only: Counter[str] = field(default_factory=Counter)  # and here if no other row does
    none_listing: int = 0  # titles in which the listing finds no keyword
    none_default: int = 0
    escaped: int = 0  # titles that hold markup or line breaks


# Ours


def encoded(titles: Sequence[str], folder: Path, compat: str | None) -> dict[str, set[str]]:
    """What encode finds in each title; nothing in a blank one."""
    source = folder / "titles.csv"
    with source.open("w", encoding="utf8", newline="") as file:
        csv.writer(file).writerows([("title",), *((title,) for title in titles)])
    out = folder / f"{compat or 'default'}.jsonl"
    encode(EncodeSettings(input=source, out=out, category_field="", dynamic=True, compat=compat, workers="1"))
    with out.open(encoding="utf8") as file:
        rows = list(map(json.loads, file))
    return {row["title"]: set(row["keywords"]) for row in rows} | {
        title: set() for title in titles if not title.strip()
    }


# Why the two sets of a title differ


def rows_of(doc: Doc, listed: set[str], ours: set[str]) -> set[str]:
    """The rows behind each keyword that only one of the two sets holds."""
    lost = {row_of_lost(keyword, doc, ours) for keyword in listed - ours}
    return lost | {row_of_found(keyword, doc, listed) for keyword in ours - listed}


def row_of_lost(keyword: str, doc: Doc, ours: set[str]) -> str:
    dashed = normalise_keyword(keyword)
    if not dashed:
        return "symbols"
    if dashed in ours:
        return "dashes"
    if doc.vocab[keyword].is_stop and any(token.lemma_ == keyword for token in doc):
        return "stop lemmas"
    phrases = (*doc.ents, *doc.noun_chunks)
    if any(all(map(says_nothing, span)) for span in phrases if span.text.replace(" ", "-") == keyword):
        return "stop phrases"
    return "other"


def row_of_found(keyword: str, doc: Doc, listed: set[str]) -> str:
    if keyword in map(normalise_keyword, listed):
        return "dashes"
    if any(token.pos_ == "PROPN" and normalise_keyword(token.text) == keyword for token in doc):
        return "proper nouns"
    if any(normalise_keyword(span.text) == keyword for span in compounds(doc)):
        return "compounds"
    return "other"


def says_nothing(token: Token) -> bool:
    return token.is_stop or token.is_punct or token.pos_ == "PRON"


def compounds(doc: Doc) -> Iterator[Span]:
    """Any run of words of which the parser ties each but the last to a later one as part of a compound."""
    for start in range(len(doc)):
        end = start
        while end < len(doc) - 1 and doc[end].dep_ == "compound":
            end += 1
            yield doc[start : end + 1]


def compare(titles: Sequence[str], find: Callable[[str], set[str]], folder: Path) -> Counts:
    compatible, default = (encoded(titles, folder, compat) for compat in ("listing", None))
    counts = Counts()
    docs = spacy.load(find_installed_model("en_core_web_sm")).pipe(map(straighten_quotes, titles))
    for title, doc in zip(tqdm(titles, unit="titles", disable=None), docs, strict=True):
        listed = find(title)
        count(counts, title, listed, default[title], is_equal=compatible[title] == listed)
        rows = rows_of(doc, listed, default[title])
        counts.rows.update(rows)
        counts.only.update(rows if len(rows) == 1 else ())
    return counts


def count(counts: Counts, title: str, listed: set[str], default: set[str], *, is_equal: bool) -> None:
    counts.titles += 1
    counts.equal += is_equal
    counts.differ += default != listed
    counts.none_listing += not listed
    counts.none_default += not default
    counts.escaped += escape(title) != title
    if not is_equal and len(counts.unequal) < UNEQUAL_SHOWN:
        counts.unequal.append(title)


def table(counts: Counts) -> Iterator[str]:
    def share(number: int) -> str:
        return f"{number:7,}  {number / counts.titles:6.1%}"

    yield f"{counts.titles:,} titles"
    yield f"--compat listing finds the listing's set  {share(counts.equal)}"
    yield f"the default finds another                 {share(counts.differ)}"
    yield f"no keyword, the listing                   {share(counts.none_listing)}"
    yield f"no keyword, the default                   {share(counts.none_default)}"
    yield f"hold markup or line breaks                {share(counts.escaped)}"
    yield f"{'the default differs in (several a title)':56}  {'titles':>15}  {'no other row':>15}"
    for row, meaning in ROWS.items():
        yield f"{meaning:56}  {share(counts.rows[row])}  {share(counts.only[row])}"
    yield from (f"not the listing's set: {title!r}" for title in counts.unequal)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("titles", type=Path, help="CSV with a column `title`")
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--limit", type=int, help="only the first so many titles")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with options.titles.open(encoding="utf8", newline="") as file:
        titles = [row["title"] for row in islice(csv.DictReader(file), options.limit)]
    with tempfile.TemporaryDirectory() as folder:
        find = listing.finder(listing.encoder_file(options.reference, Path(folder)))
        counts = compare(titles, find, Path(folder))
    print(json.dumps(vars(counts), ensure_ascii=False) if options.json else "\n".join(table(counts)))
    sys.exit(counts.equal < counts.titles or counts.rows["other"] > 0)


if __name__ == "__main__":
    main()
