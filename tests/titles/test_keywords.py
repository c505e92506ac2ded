from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redditgen.titles.keywords import find_keywords, normalise_category, normalise_keyword, straighten_quotes
from redditgen.titles.spacy_keywords import find_installed_model

Keywords = Callable[..., tuple[str, ...]]


@pytest.fixture(scope="module")
def keywords() -> Keywords:
    import spacy

    nlp = spacy.load(find_installed_model("en_core_web_sm"))
    return lambda title, length_max=20: find_keywords(nlp(straighten_quotes(title)), length_max)


@pytest.mark.parametrize(
    ("title", "drawn"),
    [
        ("Warner Bros get it", {"Warner-Bros"}),
        ("After every simpsons episode", {"simpsons", "episode", "every-simpsons"}),
        ("Oh how the time flys... #D1toD2", {"fly"}),
        ("Comedian Iliza Shlesinger", {"Comedian"}),
        ("The Day I Knew He Was Alright", {"Day"}),
        ("Rolling stone names shawn mendes and camilla cabello's senorita", {"camilla", "senorita"}),
        ("I screenshotted all of the shaders in my collection on a sheet", {"the-shaders", "collection"}),
        ("This is totally me with baseball lol", {"lol", "baseball-lol"}),
        ("Abelardo visito a su primo Big Bird", {"a-su-primo-Big-Bird", "Abelardo", "primo"}),
        ("My little Clementine always looks like she's staring straight into my soul", {"my-soul", "straight", "look"}),
        ("I'm sorry little one", {"sorry", "little"}),
        ("Fuck capitalism, let's start a commune", {"a-commune", "capitalism", "let"}),
        ("that's how this sound really comes out.", {"sound", "this-sound", "come"}),
        ("Netflix's On The Wii", {"Netflix", "The-Wii"}),
        ("Ya almorzaron amigos?", {"amigos", "almorzaron"}),
        ("[W2C] Gucci Snake Ring", {"Gucci-Snake-Ring"}),
        ("Something Tracy Yardley was recently commissioned to draw.", {"Tracy-Yardley", "draw"}),
        ("Exactly one year ago I took up reading, today I finished my 250th book", {"ago"}),
    ],
)
def test_figure_9_draws_are_among_the_keywords(keywords: Keywords, title: str, drawn: set[str]) -> None:
    assert drawn <= set(keywords(title))


def test_nouns_are_kept_and_other_words_lemmatised_in_text_order(keywords: Keywords) -> None:
    assert keywords("Two dogs were quickly chasing the bigger cats") == (
        "Two-dogs", "dogs", "quickly", "chase", "the-bigger-cats", "big", "cats",
    )  # fmt: skip


@pytest.mark.parametrize(
    "title", ["", "   ", "!!! ... ??", "no one", "I know what you and she are", "🎉🎉 -- ❤️", "~@ `^}"]
)
def test_pronouns_stop_words_and_punctuation_are_no_keywords(keywords: Keywords, title: str) -> None:
    assert {"I", "you", "she", "no-one", ""}.isdisjoint(keywords(title))
    assert all(any(map(str.isalnum, keyword)) for keyword in keywords(title))


def test_a_lemma_that_is_a_stop_word_is_no_keyword(keywords: Keywords) -> None:
    assert "go" not in keywords("He was going to Berlin")


@pytest.mark.parametrize(
    ("title", "kept", "out"),
    [
        ("This took me forever", {"forever"}, {"This", "take", "me"}),
        ("Who are you", set(), {"Who", "who", "you"}),
        ("IT and ME and They saw them", set(), {"IT", "ME", "They", "them"}),
        ("two dogs and a cat", {"two-dogs", "dogs", "a-cat", "cat"}, {"two", "a"}),
        ("My soul and yours", {"My-soul", "soul"}, {"yours", "My"}),
        ("We love the US", {"the-US", "US", "love"}, {"We", "the"}),
    ],
)
def test_a_phrase_of_stop_words_is_no_keyword_and_one_that_holds_some_is(
    keywords: Keywords, title: str, kept: set[str], out: set[str]
) -> None:
    found = set(keywords(title))
    assert kept <= found
    assert found.isdisjoint(out)


def test_each_proper_noun_and_each_compound_is_a_keyword_of_its_own(keywords: Keywords) -> None:
    assert keywords("Kylie Jenner's Los Angeles mansion") == (
        "Kylie", "Kylie-Jenner", "Kylie-Jenner-s", "Jenner",
        "Los", "Los-Angeles", "Los-Angeles-mansion", "Angeles", "mansion",
    )  # fmt: skip


def test_punctuation_in_a_phrase_becomes_dashes(keywords: Keywords) -> None:
    assert "the-sweet-old-man" in keywords("To the sweet, old man")
    assert {"r", "r-politics", "politics"} == set(keywords("They said it's r/politics"))


def test_noun_phrases_must_be_shorter_than_the_limit_and_entities_need_not(keywords: Keywords) -> None:
    title = "The extraordinarily beautiful garden"
    assert "The-extraordinarily-beautiful-garden" not in keywords(title, 36)
    assert "The-extraordinarily-beautiful-garden" in keywords(title, 37)
    assert "the-United-States-of-America" in keywords("He moved to the United States of America", 5)


def test_compounds_stand_alone_when_the_noun_phrase_is_too_long(keywords: Keywords) -> None:
    found = keywords("I repaired a ridiculously old and rusty coffee machine")
    assert "coffee-machine" in found
    assert not any(len(keyword) > 20 for keyword in found)


def test_keywords_are_distinct_and_keep_their_case(keywords: Keywords) -> None:
    found = keywords("Cats love cats and Cats love CATS")
    assert len(found) == len(set(found))
    assert {"Cats", "cats"} <= set(found)


def test_smart_quotes_are_read_as_plain_ones(keywords: Keywords) -> None:
    assert straighten_quotes("“Don’t” ‘so’") == "\"Don't\" 'so'"
    assert keywords("She’s “running” into Bob’s dog") == keywords("She's \"running\" into Bob's dog")


@pytest.mark.parametrize(
    ("written", "normalised"),
    [
        ("Warner Bros", "Warner-Bros"),
        ("#D1toD2", "D1toD2"),
        ("  Mother-in-law's ", "Mother-in-law-s"),
        ("a -- b", "a-b"),
        ("snake_case", "snake-case"),
        ("~@x`y^z}", "x-y-z"),
        ("हिन्दी भाषा", "हिन्दी-भाषा"),
        ("cafe\u0301", "cafe\u0301"),
        ("日本語", "日本語"),
        ("❤\ufe0f", ""),
        ("---", ""),
        ("", ""),
    ],
)
def test_normalise(written: str, normalised: str) -> None:
    assert normalise_keyword(written) == normalised


@given(st.text(st.characters(codec="utf8") | st.sampled_from("~`^@} -_'a")))
def test_normalised_keywords_hold_no_blank_no_markup_and_no_stray_dash(text: str) -> None:
    keyword = normalise_keyword(text)
    assert normalise_keyword(keyword) == keyword
    assert not set("~`^@} <|>\\\n") & set(keyword)
    assert "--" not in keyword
    assert keyword == keyword.strip("-")
    assert keyword == "" or len(keyword.split()) == 1


@pytest.mark.parametrize(
    ("written", "normalised"),
    [
        ("AskReddit", "askreddit"),
        (" r/AskReddit ", "r-askreddit"),
        ("breath_of_the_wild", "breath_of_the_wild"),
        ("", ""),
    ],
)
def test_category(written: str, normalised: str) -> None:
    assert normalise_category(written) == normalised
