"""Titles worth having, and what the filters take."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from redditgen.errors import InputError, MissingError, UsageError
from redditgen.generate.command import generate, generate_for_prompts
from redditgen.generate.output import write_titles
from redditgen.generate.prompts import Prompt, PromptRequest
from redditgen.generate.rounds import BLOCKS_PER_PORTION, PromptQuota
from redditgen.gpt2.model_dir import ModelDir
from redditgen.settings import GenerateSettings
from redditgen.titles.keyword_match import KeywordMatcher
from redditgen.titles.novelty import INDEX_FILE as INDEX
from redditgen.titles.novelty import TitleIndex
from redditgen.titles.record import END_TOKEN, START_TOKEN
from tests.support.fixture_types import Generating, Scripted

CATS = f"{START_TOKEN}~`cats~^"


def texts(settings: GenerateSettings) -> list[str]:
    return [title.title for title in generate(settings)]


def script(*written: str) -> Callable[[str, int], str]:
    """For the engine: these titles one after another, then new ones."""

    def text_of(prompt: str, place: int) -> str:
        title = written[place] if place < len(written) else f"Number {place}"
        opening = prompt if prompt.endswith("~@") else f"{prompt}cats~^~@"
        return f"{opening}{title}{END_TOKEN}"

    return text_of


# The same title twice


def test_no_title_comes_twice(generating: Generating, tmp_path: Path) -> None:
    made = texts(generating(n=100, unique=True))
    assert len(made) == len(set(made)) == 100
    out = tmp_path / "a.jsonl"
    write_titles(generating(n=100, unique=True, out=out))
    counts = json.loads((tmp_path / "a.jsonl.meta.json").read_text(encoding="utf8"))["counts"]
    assert (counts["titles"], len(out.read_text(encoding="utf8").splitlines())) == (100, 100)
    assert counts["duplicate"] > 0


def test_titles_that_differ_in_case_or_punctuation_are_the_same(generating: Generating, engine: Scripted) -> None:
    engine(script("A cat!", "a  CAT", "“A cat”?", "A bat"))
    assert texts(generating(n=2, unique=True, batch_size="4")) == ["A cat!", "A bat"]


def test_there_may_be_fewer_titles_than_are_asked_for(
    generating: Generating, engine: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    scripted = engine(lambda prompt, place: f"{prompt}cats~^~@Title {place % 7}{END_TOKEN}")
    assert len(texts(generating(n=10, unique=True, batch_size="4", max_tries=5))) == 7
    assert "3 of 10 titles are missing: 43 were there already; raise --temperature" in caplog.text
    assert scripted.given <= 52


def test_the_likeliest_title_is_not_asked_for_again(generating: Generating, caplog: pytest.LogCaptureFixture) -> None:
    for settings in ({"temperature": 0}, {"top_k": 1}):
        assert len(texts(generating(n=5, category="cats", unique=True, **settings))) == 1
        assert "4 of 5 titles are missing: 4 were there already" in caplog.text
        caplog.clear()


# Keywords


@pytest.fixture(scope="module")
def matcher() -> KeywordMatcher:
    return KeywordMatcher()


def test_keywords_are_found_by_their_lemma(matcher: KeywordMatcher) -> None:
    title = "My cats were SLEEPING; What's new with the Tesla Model 3 e-mail"
    asked = ["cat", "be", "sleep", "sleeping", "What-s", "tesla-model-3", "e-mail", "dog", "cats-dog", "sle"]
    [held] = matcher.find_held([asked], [title])
    assert dict(zip(asked, held, strict=True)) == dict.fromkeys(asked[:7], True) | dict.fromkeys(asked[7:], False)
    assert matcher.find_held([[], ["cat"]], ["x", "A bat"]) == [[], [False]]


def test_required_keywords_stand_in_every_title(generating: Generating, matcher: KeywordMatcher) -> None:
    settings = generating(n=30, category="cats", keywords="happy dinner", temperature=1.2)
    asked = [["happy", "dinner"]] * 30
    without = matcher.find_held(asked, texts(settings))
    made = list(generate(generating(**(vars(settings) | {"require_keywords": True}))))
    assert len(made) == 30
    assert all(map(all, matcher.find_held(asked, [title.title for title in made])))
    assert not all(map(all, without))


def test_of_each_row_its_own_keywords_are_required(generating: Generating, engine: Scripted, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("category,keywords\ncats,ball\ncats,\ncats,sofa\n", encoding="utf8")
    engine(script("No", "A sofa", "Balls", "A ball", "Sofas", "My ball", "The sofa"))
    made = list(generate(generating(n=None, prompts=path, require_keywords=True)))
    assert [(title.keywords, title.title) for title in made] == [
        ("ball", "A ball"),
        ("", "A sofa"),
        ("sofa", "The sofa"),
    ]


@pytest.mark.parametrize(
    ("wanted", "written", "drawn", "texts"),
    [
        (10, 0, 0, 10),
        (10, 4, 5, 6 * 6 / 5),  # by the share of so few texts there may be fewer or more
        (1000, 900, 1000, 100 / 0.9 + 2 * (100 * 0.1) ** 0.5 / 0.9),
        (1000, 1000, 1000, 0),
    ],
)
def test_missing_titles_are_drawn_for_so_often_that_another_round_is_rare(
    wanted: int, written: int, drawn: int, texts: float
) -> None:
    quota = PromptQuota(PromptRequest(Prompt(), wanted), 0, wanted, written=written, drawn=drawn)
    assert quota.texts_to_draw(200) == pytest.approx(texts, abs=1)


def test_an_impossible_keyword_is_given_up_when_the_tries_are_spent(
    generating: Generating, engine: Scripted, tmp_path: Path
) -> None:
    scripted = engine(script())
    settings = generating(n=3, category="cats", keywords="zyzzyva", require_keywords=True, max_tries=20, batch_size="8")
    with pytest.raises(
        InputError, match=r"^run trained: wrote no whole title that is wanted \(60 lacked a keyword\); ask for fewer"
    ):
        write_titles(generating(**(vars(settings) | {"out": tmp_path / "a.csv"})))
    assert scripted.given == 60
    assert list(tmp_path.iterdir()) == []


def test_what_there_is_when_the_tries_are_spent_is_kept(
    generating: Generating, engine: Scripted, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    engine(script("No", "A ball"))
    out = tmp_path / "a.txt"
    settings = generating(n=3, category="cats", keywords="ball", require_keywords=True, max_tries=20, out=out)
    assert write_titles(settings) == 1
    assert out.read_text(encoding="utf8") == "A ball\n"
    assert "2 of 3 titles are missing: 59 lacked a keyword; ask for fewer" in caplog.text
    counts = json.loads((tmp_path / "a.txt.meta.json").read_text(encoding="utf8"))["counts"]
    assert counts == {"titles": 1, "samples": 60, "lacking_keywords": 59}


def test_a_prompt_without_luck_is_given_up_for_all_its_titles_and_the_next_one_goes_on(
    generating: Generating, engine: Scripted, tmp_path: Path
) -> None:
    """Ten titles' tries in a row, not those of all that are asked for."""
    path = tmp_path / "a.csv"
    path.write_text("category,keywords,n\ncats,zyzzyva,1000\ncats,number,5\n", encoding="utf8")
    scripted = engine(script())
    made = list(generate(generating(n=None, prompts=path, require_keywords=True, max_tries=4, batch_size="8")))
    assert {title.keywords for title in made} == {"number"}
    assert len(made) == 5
    assert scripted.given < 40 + BLOCKS_PER_PORTION * 8 + 5


# Copies of training titles


@pytest.fixture
def unindexed(generating: Generating, tmp_path: Path) -> Generating:
    """Titles by a copy of the run without the index of its training titles."""
    run = ModelDir(generating().checkpoint_dir / "trained")
    shutil.copytree(run.path, tmp_path / "runs/trained", ignore=shutil.ignore_patterns(INDEX, "ctranslate2-*"))
    return lambda **changes: generating(**({"checkpoint_dir": tmp_path / "runs", "novel": None} | changes))


@pytest.fixture
def indexed(unindexed: Generating, titles: list[str]) -> Generating:
    TitleIndex.from_titles(titles).save(unindexed().checkpoint_dir / "trained")
    return unindexed


def test_copies_of_training_titles_are_left_out(
    indexed: Generating, titles: list[str], engine: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    exact, near = titles[0].upper() + "!", titles[-1].replace("door", "dooor")
    engine(script(exact, near, "Something new"))
    with caplog.at_level(logging.INFO):
        assert texts(indexed(n=1)) == ["Something new"]
    assert "drawn again: 1 copied a training title, 1 nearly copied a training title" in caplog.text
    engine(script(exact, near, "Something new"))
    assert texts(indexed(n=1, novel_threshold=1.0)) == [near]


def test_copies_may_be_wanted(indexed: Generating, titles: list[str], engine: Scripted) -> None:
    engine(script(titles[0], "Something new"))
    assert texts(indexed(n=1, novel=False)) == [titles[0]]


def test_a_run_without_an_index_is_not_looked_at_unless_it_is_asked_for(
    unindexed: Generating, engine: Scripted, titles: list[str]
) -> None:
    engine(script(titles[0]))
    assert texts(unindexed(n=1)) == [titles[0]]
    with pytest.raises(MissingError, match=r"training_titles\.npz: no such file"):
        texts(unindexed(n=1, novel=True))


# Safe for work, lengths


def test_what_is_not_safe_for_work_is_left_out(
    generating: Generating, engine: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    engine(script("What the fuck", "Scunthorpe"))
    with caplog.at_level(logging.INFO):
        assert texts(generating(n=1, sfw=True)) == ["Scunthorpe"]
    assert "drawn again: 1 were not safe for work" in caplog.text
    engine(script("What the fuck", "Scunthorpe"))
    assert texts(generating(n=1)) == ["What the fuck"]


def test_titles_of_blocked_categories_are_left_out(generating: Generating, engine: Scripted) -> None:
    engine(lambda prompt, place: f"{prompt}{'gonewild' if place < 3 else 'cats'}~^~@Title {place}{END_TOKEN}")
    assert texts(generating(n=1, sfw=True)) == ["Title 3"]
    with pytest.raises(UsageError, match=r"^--category gonewild: is on the list of those that --sfw leaves out; pass"):
        generate(generating(category="GoneWild", sfw=True))


def test_a_list_of_words_of_ones_own(generating: Generating, engine: Scripted, tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("kitten\n", encoding="utf8")
    engine(script("My kitten", "What the fuck"))
    assert texts(generating(n=1, sfw=True, words=words)) == ["What the fuck"]
    with pytest.raises(UsageError, match="--words is about what --sfw leaves out"):
        generating(words=words)
    words.write_text("", encoding="utf8")
    with pytest.raises(InputError, match=r"words\.txt: no words in it"):
        texts(generating(n=1, sfw=True, words=words))


def test_raw_texts_are_safe_too(generating: Generating, engine: Scripted) -> None:
    engine(lambda prompt, place: prompt + (" fuck" if place == 0 else " cats") + END_TOKEN)
    assert texts(generating(n=1, prefix="My", sfw=True)) == [" cats"]


def test_lengths_in_words(generating: Generating, engine: Scripted, caplog: pytest.LogCaptureFixture) -> None:
    engine(script("One", "One two three four", "One  two"))
    with caplog.at_level(logging.INFO):
        assert texts(generating(n=1, min_words=2, max_words=3)) == ["One  two"]
    assert "drawn again: 1 were too short, 1 were too long" in caplog.text


@pytest.mark.parametrize(
    ("asked", "option"), [({"min_words": 2}, "min-words"), ({"max_words": 2}, "max-words"), ({"novel": True}, "novel")]
)
def test_a_prefix_has_no_titles_to_filter(generating: Generating, asked: dict[str, object], option: str) -> None:
    with pytest.raises(UsageError, match=f"^--{option}: is about titles"):
        texts(generating(prefix="My", **asked))


# The order


def test_titles_come_in_the_order_in_which_they_were_asked_for(generating: Generating, engine: Scripted) -> None:
    """Also where those of the first prompt are found last."""
    engine(lambda prompt, place: prompt + ("" if prompt.endswith("a~@") and place < 20 else f"{place}{END_TOKEN}"))
    made = list(generate_for_prompts([Prompt("cats", (letter,)) for letter in "abcd"], generating(batch_size="2")))
    assert [title.keywords for title in made] == list("abcd")


def test_a_title_can_be_marked(generating: Generating, tmp_path: Path) -> None:
    for name in ("a.txt", "a.csv"):
        write_titles(generating(n=3, label=True, out=tmp_path / name))
    plain = texts(generating(n=3))
    assert (tmp_path / "a.txt").read_text(encoding="utf8") == "".join(f"[synthetic] {text}\n" for text in plain)
    assert "[synthetic]" not in (tmp_path / "a.csv").read_text(encoding="utf8")
