"""The listing's rules, on parsed titles; and, where the report is there, against the listing itself."""

import csv
import importlib.util
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from redditgen.titles.keywords import normalise_category, straighten_quotes
from redditgen.titles.listing_keywords import find_listing_keywords, split_ready_keywords
from redditgen.titles.record import Record, build, parse
from redditgen.titles.spacy_keywords import find_installed_model
from tests.support.paths import ROOT, SHARED, SHARED_DATA

REPORT = SHARED / "report.txt"
REBUILDS = SHARED / "tools/reference_encoder.py"
TITLES = SHARED_DATA / "reddit_titles.csv"

Keywords = Callable[..., tuple[str, ...]]


@pytest.fixture(scope="module")
def nlp() -> Any:
    import spacy

    return spacy.load(find_installed_model("en_core_web_sm"))


@pytest.fixture(scope="module")
def keywords(nlp: Any) -> Keywords:
    return lambda title, length_max=20: find_listing_keywords(nlp(straighten_quotes(title)), length_max)


@pytest.mark.parametrize(
    ("title", "found"),
    [
        # Of punctuation only spaces become dashes, and only in phrases.
        ("To the sweet, old man", ("the-sweet,-old-man", "sweet", "old", "man")),
        ("She’s “running” into Bob’s dog", ("run", "Bob", "Bob's-dog", "dog")),
        ("They drank coffee in New  York", ("drink", "coffee", "New--York")),
        # No letter or digit is asked for.
        ("❤️ this ❤️", ("❤", "this")),
        # A proper noun and a compound count where a phrase is just that.
        ("Warner Bros get it", ("Warner-Bros",)),
        ("Comedian Iliza Shlesinger", ("Comedian",)),
        ("I repaired a ridiculously old coffee machine", ("repair", "ridiculously", "old", "coffee", "machine")),
        # Lemmas and phrases may be stop words.
        ("He was going to Berlin", ("go", "Berlin")),
        ("This took me forever", ("This", "take", "forever")),
        ("Two dogs were quickly chasing", ("Two", "Two-dogs", "dogs", "quickly", "chase")),
        # Pronouns are a list of eleven, in two ways of writing.
        ("IT and ME and They saw them", ("IT", "ME", "see")),
        ("Who are you", ("Who",)),
        ("", ()),
        ("   ", ()),
    ],
)
def test_keywords_as_the_listing_finds_them(keywords: Keywords, title: str, found: tuple[str, ...]) -> None:
    assert keywords(title) == found


def test_the_limit_is_one_of_noun_phrases_and_not_of_entities(keywords: Keywords) -> None:
    assert "The-extraordinarily-beautiful-garden" not in keywords("The extraordinarily beautiful garden", 36)
    assert "The-extraordinarily-beautiful-garden" in keywords("The extraordinarily beautiful garden", 37)
    assert "the-United-States-of-America" in keywords("He moved to the United States of America", 5)


@pytest.mark.parametrize(
    ("text", "keywords"),
    [
        ("one, two words,~@,one ,It's", ("one", "two words", "~@", "It's")),
        (" one,,", ("one", "")),
        ("", ("",)),
    ],
)
def test_ready_keywords_are_stripped_and_no_more(text: str, keywords: tuple[str, ...]) -> None:
    assert split_ready_keywords(text, ",") == keywords


def bench() -> ModuleType:
    """scripts/bench/listing.py, which can run the listing."""
    spec = importlib.util.spec_from_file_location("bench_listing", ROOT / "scripts/bench/listing.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


needs_the_report = pytest.mark.skipif(
    not (REPORT.exists() and REBUILDS.exists() and TITLES.exists()), reason="no report, tools or titles in ../shared"
)


def real_rows() -> list[dict[str, str]]:
    """Every 16th of the 16,000."""
    with TITLES.open(encoding="utf8", newline="") as file:
        return list(islice(csv.DictReader(file), 0, None, 16))


@pytest.mark.slow
@needs_the_report
def test_real_titles_have_the_sets_that_the_listing_itself_finds(nlp: Any, tmp_path: Path) -> None:
    module = bench()
    find = module.finder(module.encoder_file(REPORT, tmp_path))
    titles = [row["title"] for row in real_rows()]
    assert len(titles) == 1_000
    # The listing parses one by one, encode many at once.
    docs = nlp.pipe(map(straighten_quotes, titles))
    ours = {title: set(find_listing_keywords(doc, 20)) for title, doc in zip(titles, docs, strict=True)}
    assert ours == {title: find(title) for title in titles}


@pytest.mark.slow
@needs_the_report
def test_records_of_the_same_draws_are_those_of_the_listing_byte_for_byte(tmp_path: Path) -> None:
    module = bench()
    file = module.encoder_file(REPORT, tmp_path)
    listing = module.encoder(file, category_field="subreddit", title_field="title")
    for row in real_rows()[::5]:
        for line in listing.generate_encoded_text(row):
            drawn = line.split("~^")[1].split("~@")[0]
            ours = build(Record(category=normalise_category(row["subreddit"]), keywords=drawn, title=row["title"]))
            assert ours + "\n" == line
            assert parse(ours) == Record(
                category=normalise_category(row["subreddit"]), keywords=drawn, title=row["title"]
            )
