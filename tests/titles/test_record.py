import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redditgen.titles.record import (
    DELIMITERS,
    END_TOKEN,
    SECTIONS,
    START_TOKEN,
    Record,
    build,
    build_prompt,
    escape,
    format_sections,
    has_markup,
    parse,
    parse_unfinished,
    unescape,
)

PIECES = [*DELIMITERS.values(), *"~`^@}", START_TOKEN, END_TOKEN, "<|", "|>", "<\\|endoftext|>", "startoftext", "\\",
          "\\\\", "\n",
          "\r", "\r\n", "\\n", "\\r", "n", "r", "\u2028", "\x85", "\x0b", "\x0c", "\ufeff", "=" * 20, '"', ",", "<",
          " ", "title", "é", "🎉", "\x00"]  # fmt: skip
HALF_PAIRS = ["\ud83d", "\udf89"]  # which a string can hold and UTF-8 can't


def texts(pieces: Sequence[str], letters: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(pieces) | st.text(letters, max_size=3), max_size=12).map("".join)


def records_of(text: st.SearchStrategy[str]) -> st.SearchStrategy[Record]:
    """Records of every combination of sections, some of a title without marks."""
    combinations = [names for count in range(1, 5) for names in itertools.combinations(SECTIONS, count)]
    has_sections = [st.builds(Record, **{name: text for name in names}) for names in combinations]
    return st.one_of(*has_sections, st.builds(Record, title=text.filter(bool), has_sections=st.just(False)))


writable = texts(PIECES, st.characters(codec="utf8"))
tricky = texts(PIECES + HALF_PAIRS, st.characters(exclude_categories=()))


def assert_survives(record: Record) -> None:
    line = build(record)
    assert parse(line) == record
    assert not set("\r\n") & set(line)
    assert record.has_sections or not has_markup(line[len(START_TOKEN) : -len(END_TOKEN)])


@settings(max_examples=1000)
@given(records_of(tricky))
def test_every_record_survives(record: Record) -> None:
    assert_survives(record)


@pytest.mark.slow
@settings(max_examples=20_000, deadline=None)
@given(records_of(tricky))
def test_every_record_survives_20_000_times(record: Record) -> None:
    assert_survives(record)


def test_each_combination_of_sections_is_tried() -> None:
    tried: set[tuple[bool, ...]] = set()

    @settings(max_examples=1000, database=None, derandomize=True)
    @given(records_of(tricky))
    def collect(record: Record) -> None:
        tried.add((record.has_sections, *(getattr(record, name) is not None for name in SECTIONS)))

    collect()
    assert len(tried) == 15 + 1


@settings(max_examples=1000)
@given(records_of(tricky), st.data())
def test_a_cut_record_has_its_sections_as_far_as_they_go(record: Record, data: st.DataObject) -> None:
    whole = format_sections(record)
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    found = parse_unfinished(cut)
    if found is None:
        assert cut in ("", "~") if record.has_sections else set(cut) <= {*START_TOKEN, *END_TOKEN, *"~\\"}
        return
    assert found.has_sections == record.has_sections
    names = [name for name in SECTIONS if getattr(record, name) is not None]
    there = [name for name in SECTIONS if getattr(found, name) is not None]
    assert there == names[: len(there)]
    *before, last = there
    assert [getattr(found, name) for name in before] == [getattr(record, name) for name in before]
    assert getattr(record, last).startswith(getattr(found, last))


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("~@cut of", "cut of"),
        ("~@cut ~", "cut "),
        ("~`c~^k~@cut<|endofte", "cut"),
        ("~@cut<|", "cut"),
        ("~@cut<|startoftext|", "cut"),
        ("~@cut\\", "cut"),
        ("~@cut ~\\", "cut "),
        ("~@cut <\\|end", "cut "),
        ("~@", ""),
        ("no marks <", "no marks "),
        ("~`c~^k~", None),
    ],
)
def test_half_a_mark_or_token_is_left_off(text: str, title: str | None) -> None:
    found = parse_unfinished(text)
    assert found is not None
    assert found.title == title


@pytest.mark.parametrize("text", ["", "~", "<|endof", "before ~@title", "~@title~^keywords", "~@one~@two"])
def test_what_is_no_beginning_of_a_record_is_none(text: str) -> None:
    assert parse_unfinished(text) is None


@pytest.mark.parametrize("piece", ["\\", "~", "<", "<|", "~\\", "\n"])
def test_long_fields_of_odd_text_are_no_trap(piece: str) -> None:
    """Patterns that go back from each character would take hours here."""
    record = Record(title=piece * 1_000_000)
    assert parse(build(record)) == record
    assert parse_unfinished(format_sections(record) + "x") is not None


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
    assert build(Record(title='Why "this"?', has_sections=False)) == '<|startoftext|>Why "this"?<|endoftext|>'
    assert parse("<|startoftext|>Why?<|endoftext|>") == Record(title="Why?", has_sections=False)
    assert parse("<|startoftext|>~@Why?<|endoftext|>") == Record(title="Why?")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no tokens ~@title",
        f"{START_TOKEN}~@no end",
        f"~@no start{END_TOKEN}",
        f"{START_TOKEN}{END_TOKEN}",
        f"{START_TOKEN}before ~@title{END_TOKEN}",
        f"{START_TOKEN}~@title~^keywords{END_TOKEN}",
        f"{START_TOKEN}~@title~@title{END_TOKEN}",
    ],
)
def test_what_is_not_a_whole_record_is_none(text: str) -> None:
    assert parse(text) is None


def test_a_prompt_is_how_the_whole_record_begins() -> None:
    given_part, whole = Record(category="cats", keywords="a b"), Record(category="cats", keywords="a b", title="T~@\n")
    assert build_prompt(given_part, "title") == START_TOKEN + "~`cats~^a b~@"
    assert build(whole).startswith(build_prompt(given_part, "title"))
    assert build_prompt(Record(), "") == START_TOKEN
