#!/usr/bin/env python3
"""Measure the index of titles that --novel asks: its size and speed, what it misses and what it calls a copy.

    scripts/bench/novelty.py data/reddit_titles.csv --show 20
    scripts/bench/novelty.py posts.parquet --field title --lookups 10000

The titles are shuffled; some are kept back and looked up in an index of the others. The first of them are then compared
with every indexed title, to count near copies that the index did not find. With --show, pairs are printed: near copies,
and of those compared the pairs that only their key words part, and the pairs just below the threshold. --datasketch
measures that library's tables of the same bands too (`pip install datasketch`).
"""

import argparse
import pickle
import random
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from redditgen.files.tables import open_table
from redditgen.titles.minhash import BANDS, ROWS
from redditgen.titles.near_copies import differ_in_key_words, jaccard_similarity, trigrams
from redditgen.titles.novelty import DEFAULT_THRESHOLD, INDEX_FILE, TitleIndex, normalise_title

BELOW = 0.1  # how far below the threshold pairs are shown


class Pair(NamedTuple):
    similarity: float
    title: str
    other: str


def split(path: Path, field: str, most: int | None, lookups: int) -> tuple[list[str], list[str]]:
    """The titles to index and those to look up."""
    with open_table(path, made_by="give a file of titles") as opened:
        titles = [cells[0] for cells in opened.rows([field])]
    random.Random(0).shuffle(titles)
    kept_back, rest = titles[:lookups], titles[lookups:]
    return rest[:most], kept_back


def indexed(titles: Sequence[str], folder: Path) -> TitleIndex:
    """An index of the titles, written and read again; prints what that takes."""
    start = time.perf_counter()
    TitleIndex.from_titles(titles).save(folder)
    built = time.perf_counter()
    index = TitleIndex.load(folder)
    loaded = time.perf_counter()
    size = (folder / INDEX_FILE).stat().st_size
    print(f"{len(titles)} titles, {len(index)} different ones")
    print(f"  made and written in {built - start:.2f} s, read in {loaded - built:.3f} s")
    print(f"  {size / 1e6:.1f} MB, {size / len(index):.0f} bytes a title")
    return index


def with_datasketch(titles: Iterable[str]) -> None:
    """The titles' bands, without the titles, in datasketch's tables; prints what they take."""
    from datasketch import MinHash, MinHashLSH

    tables = MinHashLSH(params=(BANDS, ROWS), num_perm=BANDS * ROWS)
    for number, title in enumerate(titles):
        hashes = MinHash(num_perm=BANDS * ROWS)
        hashes.update_batch([run.encode("utf8", "surrogatepass") for run in trigrams(normalise_title(title))])
        tables.insert(number, hashes)
    pickled = pickle.dumps(tables)
    start = time.perf_counter()
    pickle.loads(pickled)
    seconds = time.perf_counter() - start
    tracemalloc.start()
    there = pickle.loads(pickled)
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    number = len(there.keys)
    print(f"  datasketch: read in {seconds:.3f} s, {size / number:.0f} bytes a title in memory")


def look_up(index: TitleIndex, titles: Sequence[str]) -> list[Pair]:
    """The near copies among titles; prints how many there are and how fast they were told."""
    start = time.process_time()
    matches = [(title, index.find_copy(title)) for title in titles]
    seconds = time.process_time() - start
    kinds = Counter(match.kind for _, match in matches if match)
    print(f"  {len(titles) / seconds:.0f} lookups a second of processor time")
    shares = ", ".join(f"{kind} {kinds[kind]} ({kinds[kind] / len(titles):.2%})" for kind in ("exact", "near"))
    print(f"of {len(titles)} real titles that are not in it, copies: {shares}")
    return [Pair(m.similarity, title, m.title) for title, m in matches if m and m.kind == "near"]


def nearest(titles: Sequence[str], others: Iterable[str], least: float) -> Iterator[Pair]:
    """Pairs at least that similar, by comparing each title with each other one, but for those that are the same."""
    compared = [(text, trigrams(text)) for text in map(normalise_title, titles)]
    for other in map(normalise_title, others):
        its = trigrams(other)
        for text, runs in compared:
            if min(len(runs), len(its)) >= least * max(len(runs), len(its)) and other != text:
                similarity = jaccard_similarity(runs, its)
                if similarity >= least:
                    yield Pair(similarity, text, other)


def show(heading: str, pairs: Sequence[Pair], number: int) -> None:
    print(f"\n{heading}: {len(pairs)}")
    for pair in sorted(random.Random(0).sample(pairs, min(number, len(pairs)))):
        print(f"  {pair.similarity:.2f}  {pair.title}\n        {pair.other}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("titles", type=Path, help="CSV, NDJSON or Parquet")
    parser.add_argument("--field", default="title")
    parser.add_argument("--titles", dest="most", type=int, help="index at most so many")
    parser.add_argument("--lookups", type=int, default=3000)
    parser.add_argument("--compared", type=int, default=200, help="titles compared with every other one")
    parser.add_argument("--datasketch", action="store_true")
    parser.add_argument("--show", type=int, default=0, help="pairs of a kind to print")
    options = parser.parse_args()

    titles, kept_back = split(options.titles, options.field, options.most, options.lookups)
    with tempfile.TemporaryDirectory() as folder:
        index = indexed(titles, Path(folder))
    if options.datasketch:
        with_datasketch(index)
    near = look_up(index, kept_back)

    pairs = list(nearest(kept_back[: options.compared], index, DEFAULT_THRESHOLD - BELOW))
    above = [pair for pair in pairs if pair.similarity >= DEFAULT_THRESHOLD]
    copies = [pair for pair in above if not differ_in_key_words(pair.title, pair.other)]
    missed = [pair for pair in copies if index.find_copy(pair.title) is None]
    print(f"{options.compared} of them compared with every title: {len(copies)} near copies, {len(missed)} not found")
    if options.show:
        show("near copies", near, options.show)
        show("parted by their key words", [pair for pair in above if pair not in copies], options.show)
        show("not similar enough", [pair for pair in pairs if pair.similarity < DEFAULT_THRESHOLD], options.show)


if __name__ == "__main__":
    main()
