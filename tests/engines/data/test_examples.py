from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redditgen.engines.data.examples import DynamicExamples, tokenize_prompts, tokenize_records
from redditgen.gpt2.run_info import COMPACT_TOKENS, LITERAL_TOKENS, NO_RECORDS
from redditgen.gpt2.tokenizer import Tokenizer, train_tokenizer
from redditgen.titles.keyword_draws import KeywordPool
from redditgen.titles.record import END_TOKEN, START_TOKEN, Record, build, build_prompt, format_sections

CAT = Record(category="cats", keywords="ball", title="My cat plays")

texts = st.text(st.characters(codec="utf8"), max_size=6) | st.sampled_from(
    [END_TOKEN, START_TOKEN, "~@", '"quoted"', "é🎉", "a\nb"]
)
records = st.builds(Record, *[st.none() | texts] * 4) | st.builds(
    Record, title=texts.filter(bool), has_sections=st.just(False)
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["~`cats~^ball~@My cat plays", START_TOKEN, END_TOKEN], 280)


@settings(max_examples=300, deadline=None)
@given(st.lists(records, min_size=1, max_size=4))
def test_a_compact_record_is_its_sections_between_two_end_tokens(tokenizer: Tokenizer, some: list[Record]) -> None:
    made = tokenize_records(some, tokenizer, COMPACT_TOKENS, context=10_000)
    assert len(made) == len(some)
    for number, record in enumerate(some):
        first, *ids, last = made.sequences[number].tolist()
        assert first == last == tokenizer.end
        assert tokenizer.end not in ids
        assert tokenizer.decode(ids) == format_sections(record)


@settings(max_examples=300, deadline=None)
@given(st.lists(records, min_size=1, max_size=4))
def test_a_literal_record_is_the_text_of_its_line(tokenizer: Tokenizer, some: list[Record]) -> None:
    made = tokenize_records(some, tokenizer, LITERAL_TOKENS, context=10_000)
    assert [tokenizer.decode(made.sequences[number].tolist()) for number in range(len(some))] == list(map(build, some))
    assert tokenizer.end not in made.sequences.ids


@pytest.mark.parametrize("record_tokens", [COMPACT_TOKENS, LITERAL_TOKENS])
@pytest.mark.parametrize(
    "record", [CAT, Record(title="Title"), Record(category="é🎉", title="Ünï"), Record(title="T", body="The body")]
)
def test_a_title_starts_where_the_text_before_it_ends(tokenizer: Tokenizer, record: Record, record_tokens: str) -> None:
    made = tokenize_records([record], tokenizer, record_tokens, context=1000)
    ids, start = made.sequences[0].tolist(), int(made.title_starts[0])
    is_compact = record_tokens == COMPACT_TOKENS
    before = Record(category=record.category, keywords=record.keywords)
    assert tokenizer.decode(ids[is_compact:start]) == build_prompt(before, "title").removeprefix(
        START_TOKEN if is_compact else ""
    )
    assert tokenizer.decode(ids[start:]).startswith(record.title or "")
    assert made.title_chars.tolist() == [len(record.title or "")]


def test_a_token_that_the_mark_and_the_title_share_counts_as_the_titles() -> None:
    tokenizer = train_tokenizer(['~@" ~@" ~@"'] * 9, 259)
    made = tokenize_records([Record(title='"')], tokenizer, COMPACT_TOKENS, context=100)
    assert tokenizer.decode(made.sequences[0][1:-1].tolist()) == '~@"'
    assert len(made.sequences[0]) == 3
    assert made.title_starts.tolist() == [1]


def test_characters_are_those_of_the_title_before_it_is_escaped(tokenizer: Tokenizer) -> None:
    made = tokenize_records(
        [Record(title="a\nb~@"), Record(category="c"), Record(title="")], tokenizer, COMPACT_TOKENS, context=100
    )
    assert made.title_chars.tolist() == [5, 0, 0]


@pytest.mark.parametrize("record_tokens", [COMPACT_TOKENS, LITERAL_TOKENS])
def test_what_lies_beyond_the_context_is_cut_and_counted(tokenizer: Tokenizer, record_tokens: str) -> None:
    long = Record(category="c" * 50, title="My cat plays")
    whole = tokenize_records([long, CAT], tokenizer, record_tokens, context=1000)
    cut = tokenize_records([long, CAT], tokenizer, record_tokens, context=20)
    assert (whole.cut, cut.cut) == (0, sum(whole.sequences.lengths > 20))
    assert [cut.sequences[n].tolist() for n in (0, 1)] == [whole.sequences[n][:20].tolist() for n in (0, 1)]
    assert cut.title_starts[0] == 20  # nothing of the title is left


def test_a_record_that_just_fits_is_not_cut(tokenizer: Tokenizer) -> None:
    length = len(tokenize_records([CAT], tokenizer, COMPACT_TOKENS, context=1000).sequences[0])
    assert [tokenize_records([CAT], tokenizer, COMPACT_TOKENS, context).cut for context in (length, length - 1)] == [
        0,
        1,
    ]


def where_the_title_is(record: Record, tokenizer: Tokenizer) -> tuple[int, int]:
    """Of a compact record, by the characters of every token."""
    [encoding] = tokenizer.encode([format_sections(record)])
    before = len(format_sections(replace(record, title="", body=None))) if record.has_sections else 0
    if record.title is None and record.has_sections:
        before = len(format_sections(replace(record, body=None)))
    behind = len(format_sections(replace(record, body=None if record.body is None else "")))
    ends = 1 if record.body is None else 0
    starts = sum(end <= before for _, end in encoding.offsets)
    return 1 + starts, 1 + sum(start < behind for start, _ in encoding.offsets) + ends


@settings(max_examples=500, deadline=None)
@given(st.lists(records, min_size=1, max_size=4))
def test_a_title_is_where_its_characters_are(tokenizer: Tokenizer, some: list[Record]) -> None:
    made = tokenize_records(some, tokenizer, COMPACT_TOKENS, context=10_000)
    wanted = [where_the_title_is(record, tokenizer) for record in some]
    assert list(zip(made.title_starts.tolist(), made.title_ends.tolist(), strict=True)) == wanted


def test_a_pool_of_examples_is_those_of_its_numbers_in_every_epoch(tokenizer: Tokenizer) -> None:
    titles = [Record(title=f"{number} " * number) for number in range(6)]
    wanted = tokenize_records([titles[4], titles[0], titles[5]], tokenizer, COMPACT_TOKENS, context=100)
    for epoch in (0, 3):
        made = tokenize_records(titles, tokenizer, COMPACT_TOKENS, context=100).pool(epoch, np.array([4, 0, 5]))
        assert made.sequences.ids.tolist() == wanted.sequences.ids.tolist()
        assert made.sequences.starts.tolist() == wanted.sequences.starts.tolist()
        for name in ("title_starts", "title_ends", "title_chars"):
            assert getattr(made, name).tolist() == getattr(wanted, name).tolist()


def test_dynamic_records_that_some_draw_makes_too_long_are_counted(tokenizer: Tokenizer) -> None:
    fits, long, undrawn = (
        Record(title="a" * 30),
        Record(title="b" * 80),
        KeywordPool(keywords="c" * 60 + " d", title="e"),
    )
    some: list[Record] = [fits, long, undrawn, KeywordPool(keywords="f g h", title="e")]

    def dynamic(most: int) -> DynamicExamples:
        return DynamicExamples(some, tokenizer, COMPACT_TOKENS, context=50, seed=0, min_keywords=0, max_keywords=most)

    assert [dynamic(most).count_too_long() for most in (0, 1, 3)] == [1, 2, 2]
    drawn = [dynamic(1).pool(epoch, range(4)) for epoch in range(50)]
    assert {made.cut for made in drawn} == {1, 2}
    assert max(int(made.sequences.lengths.max()) for made in drawn) == 50


def test_records_stay_in_order_beyond_those_tokenized_at_once(tokenizer: Tokenizer) -> None:
    many = [Record(title=str(number)) for number in range(10_000)]
    made = tokenize_records(iter(many), tokenizer, COMPACT_TOKENS, context=100)
    assert len(made) == len(made.title_starts) == len(made.title_chars) == 10_000
    for number in (0, 8191, 8192, 9999):
        assert tokenizer.decode(made.sequences[number][1:-1].tolist()) == f"~@{number}"


def test_no_records_are_no_examples(tokenizer: Tokenizer) -> None:
    made = tokenize_records([], tokenizer, COMPACT_TOKENS, context=10)
    assert (len(made), made.cut, made.title_starts.tolist()) == (0, 0, [])


@pytest.mark.parametrize("record_tokens", [COMPACT_TOKENS, LITERAL_TOKENS])
def test_a_prompt_has_the_tokens_of_the_records_beginning(tokenizer: Tokenizer, record_tokens: str) -> None:
    sequence = tokenize_records([CAT], tokenizer, record_tokens, context=1000).sequences[0].tolist()
    starts = [build_prompt(Record(), "category"), build_prompt(Record(category="cats", keywords="ball"), "title")]
    for ids in tokenize_prompts(starts, tokenizer, record_tokens):
        assert len(ids) > 1
        assert sequence[: len(ids)] == ids


def test_a_prompt_of_a_record_without_marks_is_the_start_token_alone(tokenizer: Tokenizer) -> None:
    sequence = (
        tokenize_records([Record(title="My cat", has_sections=False)], tokenizer, COMPACT_TOKENS, context=1000)
        .sequences[0]
        .tolist()
    )
    assert (
        tokenize_prompts([build_prompt(Record(), "")], tokenizer, COMPACT_TOKENS) == [[tokenizer.end]] == [sequence[:1]]
    )
    assert tokenizer.decode(sequence[1:-1]) == "My cat"


def test_a_raw_prompt_is_its_tokens_with_the_one_token_where_the_run_has_it(tokenizer: Tokenizer) -> None:
    end, my, cat = tokenizer.end, *(encoding.ids for encoding in tokenizer.encode(["My", " cat"]))
    texts = [
        "My",
        f"{START_TOKEN}My",
        f"My{END_TOKEN}",
        f"{START_TOKEN}My{END_TOKEN}{START_TOKEN} cat",
        "",
        START_TOKEN,
    ]
    compact = [my, [end, *my], [*my, end], [end, *my, end, end, *cat], [end], [end]]
    assert tokenize_prompts(texts, tokenizer, COMPACT_TOKENS) == compact
    for record_tokens in (LITERAL_TOKENS, NO_RECORDS):
        made = tokenize_prompts(texts, tokenizer, record_tokens)
        assert made[4] == [end]  # as gpt-2-simple begins where nothing is asked
        assert [tokenizer.decode(ids) for ids in made[:4] + made[5:]] == texts[:4] + texts[5:]
        assert not any(end in ids for ids in made[:4] + made[5:])


@pytest.mark.parametrize("record_tokens", [COMPACT_TOKENS, LITERAL_TOKENS])
def test_a_title_without_marks_is_measured_with_the_token_that_ends_it(
    tokenizer: Tokenizer, record_tokens: str
) -> None:
    made = tokenize_records([Record(title="My cat", has_sections=False)], tokenizer, record_tokens, context=1000)
    ids, (start,), (end,) = made.sequences[0].tolist(), made.title_starts, made.title_ends
    assert (tokenizer.decode(ids[start:end]), end) == ("My cat" + END_TOKEN, len(ids))
    assert made.title_chars.tolist() == [6]
