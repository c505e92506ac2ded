#!/usr/bin/env python3
"""Measure whether keywords steer a run: the share of generated titles that hold the keyword they were asked for.

    scripts/bench/keyword_control.py --run run1 --dataset data/reddit_titles_encoded.txt

Categories and keywords (one each) come from titles that finetuning held out. Beside it stands the share in titles
that were written for the same categories with no keyword asked. A keyword counts as held if every part of it stands
in the title as a word of the same lemma, whatever its case.
"""

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

from redditgen.generate import Prompt, titles
from redditgen.keyword_hits import Hits
from redditgen.records import records
from redditgen.settings import FinetuneSettings, GenerateSettings
from redditgen.splits import is_held_out


def held_out_pairs(dataset: Path, number: int, finetuned: FinetuneSettings) -> list[tuple[str, str]]:
    """A category and a keyword of each of `number` held-out titles, no title twice."""
    pairs: dict[str, tuple[str, str]] = {}
    rng = random.Random(0)
    for record in records(dataset):
        title, keywords = record.title or "", (record.keywords or "").split()
        if keywords and record.category and is_held_out(title, finetuned.val_fraction, finetuned.seed):
            pairs[title] = (record.category, rng.choice(keywords))
    some = list(pairs.values())
    rng.shuffle(some)
    return some[:number]


def share_held(hits: Hits, asked: Sequence[str], written: Sequence[str]) -> float:
    held = hits.held([[keyword] for keyword in asked], written)
    return sum(all(of_title) for of_title in held) / len(held)


def written_for(prompts: list[Prompt], settings: GenerateSettings) -> list[tuple[str | None, str, str]]:
    return [(title.category, title.keywords or "", title.title) for title in titles(prompts, settings)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default="run1")
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--prompts", type=int, default=400)
    parser.add_argument("--show", type=int, default=10, help="titles to print")
    options = parser.parse_args()

    pairs = held_out_pairs(options.dataset, options.prompts, FinetuneSettings(dataset=options.dataset))
    # Whatever is a whole title, as the model writes it.
    settings = GenerateSettings(run=options.run, seed=1, unique=False, novel=False, sfw=False)
    hits = Hits()

    with_keyword = written_for([Prompt(category, (keyword,)) for category, keyword in pairs], settings)
    without = written_for([Prompt(category) for category, _ in pairs], settings)
    by_category: dict[str, list[str]] = {}
    for category, keyword in pairs:
        by_category.setdefault(category, []).append(keyword)
    compared = [(by_category[category or ""].pop(), title) for category, _, title in without]

    asked = share_held(hits, [keyword for _, keyword, _ in with_keyword], [title for _, _, title in with_keyword])
    chance = share_held(hits, *zip(*compared, strict=True))
    print(f"{len(pairs)} held-out categories and keywords, run {options.run}")
    print(f"  asked for the keyword: {asked:.1%} of the titles hold it")
    print(f"  not asked for it:      {chance:.1%}")
    for category, keyword, title in with_keyword[: options.show]:
        print(f"  {category} + {keyword}: {title}")


if __name__ == "__main__":
    main()
