from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redditgen.markup import END, MARKS, SECTIONS, START, Record, build, escape, has_markup, parse, prompt, unescape

PIECES = [*MARKS.values(), *"~`^@}", START, END, "<|", "|>", "<\\|endoftext|>", "startoftext", "\\", "\\\\", "\n", "\r",
          "\r\n", "\\n", "\\r", "n", "r", "\u2028", "\x85", "<", " ", "title", "é", "🎉", "\x00"]  # fmt: skip

tricky = st.lists(st.sampled_from(PIECES) | st.text(st.characters(codec="utf8"), max_size=3), max_size=12).map("".join)
sections = st.sampled_from([names for names in product(*[(name, None) for name in SECTIONS]) if any(names)])


@settings(max_examples=1000)
@given(sections, st.lists(tricky, min_size=4, max_size=4))
def test_every_record_survives(names: tuple[str | None, ...], texts: list[str]) -> None:
    fields: dict[str, Any] = {name: text for name, text in zip(names, texts, strict=True) if name}
    record = Record(**fields)
    line = build(record)
    assert parse(line) == record
    assert not set("\r\n") & set(line)


@settings(max_examples=500)
@given(tricky.filter(bool))
def test_every_record_without_marks_survives(title: str) -> None:
    record = Record(title=title, marked=False)
    line = build(record)
    assert parse(line) == record
    assert not has_markup(line[len(START) : -len(END)])
    assert not set("\r\n") & set(line)


@settings(max_examples=1000)
@given(tricky)
def test_escaped_text_holds_no_markup_and_comes_back(text: str) -> None:
    escaped = escape(text)
    assert unescape(escaped) == text
    assert not has_markup(escaped)
    assert not set("\r\n") & set(escaped)


@pytest.mark.parametrize(
    "text",
    [
        "¯\\_(ツ)_/¯",
        "C:\\temp and \\o/",
        "~ tilde ~ and ~5",
        "a@b.c `code` ^this }",
        "<|> <3 |endoftext|",
        "",
        "it's 50% \\",
    ],
)
def test_ordinary_text_is_unchanged(text: str) -> None:
    assert escape(text) == text


def test_a_record_looks_as_in_the_report() -> None:
    record = Record(category="celebs", keywords="Comedian Iliza-Shlesinger", title="Comedian Iliza Shlesinger")
    assert build(record) == (
        "<|startoftext|>~`celebs~^Comedian Iliza-Shlesinger~@Comedian Iliza Shlesinger<|endoftext|>"
    )


def test_a_record_without_marks_looks_as_gpt_2_simple_makes_it_of_a_table() -> None:
    assert build(Record(title='Why "this"?', marked=False)) == '<|startoftext|>Why "this"?<|endoftext|>'
    assert parse("<|startoftext|>Why?<|endoftext|>") == Record(title="Why?", marked=False)
    assert parse("<|startoftext|>~@Why?<|endoftext|>") == Record(title="Why?")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no tokens ~@title",
        f"{START}~@no end",
        f"~@no start{END}",
        f"{START}{END}",
        f"{START}before ~@title{END}",
        f"{START}~@title~^keywords{END}",
        f"{START}~@title~@title{END}",
    ],
)
def test_what_is_not_a_whole_record_is_none(text: str) -> None:
    assert parse(text) is None


def test_a_prompt_is_how_the_whole_record_begins() -> None:
    given_part, whole = Record(category="cats", keywords="a b"), Record(category="cats", keywords="a b", title="T~@\n")
    assert prompt(given_part, "title") == START + "~`cats~^a b~@"
    assert build(whole).startswith(prompt(given_part, "title"))
    assert prompt(Record(), "") == START
