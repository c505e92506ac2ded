#!/usr/bin/env python3
"""What generate's filters make of what a run writes: do its titles hold their keywords, and are they new?

    scripts/bench/filters.py --run run1 --dataset data/reddit_titles_encoded.txt

Each of up to --prompts held-out titles gives its category and its keywords; a title is asked for with them, at first as
the run writes it, then with --require-keywords, --novel, and both. A title holds its keywords if every part of each
stands in it as a word of the same lemma. It is new if the run's index, that of all titles it was finetuned on and of
those held out, holds neither it nor a near copy.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from redditgen.finetune.dataset.load import read_held_out_records
from redditgen.generate.command import generate_for_prompts
from redditgen.generate.prompts import Prompt
from redditgen.generate.title import Title
from redditgen.gpt2.find import find_run
from redditgen.settings import FinetuneSettings, GenerateSettings
from redditgen.titles.keyword_match import KeywordMatcher
from redditgen.titles.novelty import DEFAULT_THRESHOLD, TitleIndex

FILTERS = {
    "as they come": {"require_keywords": False, "novel": False},
    "--require-keywords": {"require_keywords": True, "novel": False},
    "--novel": {"require_keywords": False, "novel": True},
    "both": {"require_keywords": True, "novel": True},
}


def prompts_of(settings: FinetuneSettings, most: int) -> list[Prompt]:
    """Of the held-out titles that have keywords, each title's first."""
    run = find_run(settings.run, settings.checkpoint_dir)
    found: dict[str | None, Prompt] = {}
    for record in read_held_out_records(settings, run.run_info(), run.tokenizer()):
        if record.keywords:
            found.setdefault(record.title, Prompt(record.category, tuple(record.keywords.split())))
    return list(found.values())[:most]


def share(holds: Sequence[bool]) -> str:
    return f"{sum(holds) / len(holds):.1%}" if holds else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default="run1")
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--prompts", type=int, default=300)
    options = parser.parse_args()
    prompts = prompts_of(FinetuneSettings(dataset=options.dataset, run=options.run), options.prompts)
    index, matcher = TitleIndex.load(find_run(options.run, Path("checkpoint")).path), KeywordMatcher()
    print(f"{len(prompts)} prompts of held-out titles, {sum(len(p.keywords or ()) for p in prompts)} keywords in all\n")
    print(f"{'':<20}{'titles':>8}{'seconds':>9}{'hold all keywords':>19}{'new':>8}")
    for name, chosen in FILTERS.items():
        # The prompts stand for a file of them, which is not read here.
        settings = GenerateSettings(run=options.run, seed=1, unique=False, sfw=False, prompts=options.dataset, **chosen)
        began = time.monotonic()
        made: list[Title] = list(generate_for_prompts(prompts, settings))
        seconds = time.monotonic() - began
        texts = [title.title for title in made]
        held = [all(of_one) for of_one in matcher.find_held([(title.keywords or "").split() for title in made], texts)]
        new = [match is None for match in index.find_copies(texts, DEFAULT_THRESHOLD)]
        print(f"{name:<20}{len(made):>8}{seconds:>9.1f}{share(held):>19}{share(new):>8}", flush=True)


if __name__ == "__main__":
    main()
