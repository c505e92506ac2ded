from collections import Counter
from itertools import islice
from random import Random

import numpy as np
import pytest
import torch

from redditgen.engines.data.batches import IGNORED_TARGET, POOL_BATCHES
from redditgen.engines.data.epochs import training_batches
from redditgen.engines.data.examples import DynamicExamples, Examples, tokenize_records
from redditgen.gpt2.model_dir import ModelDir
from redditgen.gpt2.run_info import COMPACT_TOKENS
from redditgen.gpt2.tokenizer import Tokenizer
from redditgen.titles.keyword_draws import KeywordPool, draw_keywords
from redditgen.titles.record import Record, parse_sections

SEED = 5
Batch = tuple[torch.Tensor, torch.Tensor]


@pytest.fixture(scope="module")
def tokenizer(tiny: ModelDir) -> Tokenizer:
    return tiny.tokenizer()


def numbered(count: int) -> Examples:
    """Each of them a row of 2 to 9 tokens whose last one is its own."""
    rng = np.random.default_rng(0)
    rows = [[*rng.integers(1, 9, rng.integers(1, 9)).tolist(), 1000 + number] for number in range(count)]
    return Examples.from_rows(rows, [(1, len(row)) for row in rows], [1] * count)


def dynamic(tokenizer: Tokenizer, count: int = 40) -> DynamicExamples:
    records: list[Record] = [
        KeywordPool(
            category="cats", keywords=" ".join(f"k{number}x{k}" for k in range(number % 7)), title=f"Cat {number}"
        )
        for number in range(count)
    ]
    records[3] = Record(category="dogs", keywords="as it is", title="Cat 3")
    return DynamicExamples(records, tokenizer, COMPACT_TOKENS, 1000, SEED, 1, 3)


def taken(data: Examples | DynamicExamples, start: int, count: int, size: int, **kinds: bool) -> list[Batch]:
    kinds = {"titles_only": False} | kinds
    return [batch for batch, _ in islice(training_batches(start, data, size, SEED, **kinds), count)]


def numbers(batches: list[Batch]) -> list[int]:
    return [int(row.max()) - 1000 for _, targets in batches for row in targets]


@pytest.mark.parametrize(
    ("count", "size"), [(40, 8), (41, 8), (5, 8), (1, 1), (POOL_BATCHES + 3, 1), (POOL_BATCHES * 4 + 9, 2)]
)
def test_every_epoch_holds_every_record_once_and_in_another_order(count: int, size: int) -> None:
    data, a_pass = numbered(count), -(-count // size)
    epochs = [numbers(taken(data, epoch * a_pass, a_pass, size)) for epoch in range(3)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(count))] * 3
    assert count < 9 or (epochs[0] != epochs[1] != epochs[2])


@pytest.mark.parametrize(
    "start",
    [
        1,
        4,
        POOL_BATCHES - 1,
        POOL_BATCHES,
        POOL_BATCHES + 1,
        2 * POOL_BATCHES + 9,
        2 * POOL_BATCHES + 10,
        5 * POOL_BATCHES + 1,
    ],
)
def test_a_training_that_goes_on_gets_the_batches_it_would_have_got(start: int) -> None:
    data = numbered(4 * POOL_BATCHES + 19)  # 2 pools and 5 batches an epoch
    whole, rest = (taken(data, at, 6 * POOL_BATCHES - at, 2) for at in (0, start))
    for (inputs, targets), (other_inputs, other_targets) in zip(whole[start:], rest, strict=True):
        assert torch.equal(inputs, other_inputs) and torch.equal(targets, other_targets)


def test_batches_are_of_like_length_but_come_in_no_order_of_it() -> None:
    lengths = np.array([inputs.shape[1] for inputs, _ in taken(numbered(2000), 0, 250, 8)])
    assert abs(np.corrcoef(lengths[:-1], lengths[1:])[0, 1]) < 0.2
    padding = [int((targets == IGNORED_TARGET).sum()) for _, targets in taken(numbered(2000), 0, 250, 8)]
    assert sum(padding) < 50


def test_each_epoch_draws_keywords_anew(tokenizer: Tokenizer) -> None:
    data = dynamic(tokenizer)
    for epoch in (0, 1, 7):
        found = sorted(map(str, texts(taken(data, epoch * 5, 5, 8), tokenizer)))
        wanted = []
        for number, record in enumerate(data.records):
            words = (record.keywords or "").split()
            random = Random(f"{SEED} epoch {epoch} record {number}")
            drawn = draw_keywords(random, words, 1, 3) if isinstance(record, KeywordPool) else record.keywords
            wanted.append(Record(category=record.category, keywords=drawn, title=record.title))
        assert found == sorted(map(str, wanted))


def texts(batches: list[Batch], tokenizer: Tokenizer) -> list[Record | None]:
    rows = [row for _, targets in batches for row in targets.tolist()]
    kept = [[token for token in row if token != IGNORED_TARGET] for row in rows]
    assert all(row[-1] == tokenizer.end for row in kept)
    return [parse_sections(tokenizer.decode(row[:-1])) for row in kept]


def test_over_the_epochs_every_keyword_is_drawn(tokenizer: Tokenizer) -> None:
    drawn: Counter[str] = Counter()
    for record in texts(taken(dynamic(tokenizer), 0, 5 * 30, 8), tokenizer):
        assert record is not None
        drawn.update((record.keywords or "").split())
    assert {f"k6x{k}" for k in range(6)} <= set(drawn)
    assert drawn["it"] == 30


def test_a_pool_is_tokenized_when_it_is_its_turn(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    data, asked = dynamic(tokenizer, POOL_BATCHES + 9), []
    pool = DynamicExamples.pool

    def noting(self: DynamicExamples, epoch: int, numbers: "np.ndarray") -> Examples:
        asked.append((epoch, len(numbers)))
        return pool(self, epoch, numbers)

    monkeypatch.setattr(DynamicExamples, "pool", noting)
    for start, count, wanted in (
        (0, 1, [(0, POOL_BATCHES)]),
        (POOL_BATCHES - 1, 2, [(0, POOL_BATCHES), (0, 9)]),
        (POOL_BATCHES + 8, 2, [(0, 9), (1, POOL_BATCHES)]),
    ):
        asked.clear()
        taken(data, start, count, 1)
        assert asked == wanted


def test_of_titles_alone_their_tokens_and_their_end_count(tokenizer: Tokenizer) -> None:
    records = [
        Record(category="cats", keywords="ball", title="My cat plays"),
        Record(title="My dog", has_sections=False),
        Record(category="dogs", title="Old", body="A body"),
    ]
    data = tokenize_records(records, tokenizer, COMPACT_TOKENS, 1000)
    [(inputs, targets)] = taken(data, 0, 1, 3, titles_only=True)
    [(other_inputs, all_targets)] = taken(data, 0, 1, 3)
    assert torch.equal(inputs, other_inputs)
    assert ((targets == all_targets) | (targets == IGNORED_TARGET)).all()
    learned = {tokenizer.decode([token for token in row if token != IGNORED_TARGET]) for row in targets.tolist()}
    assert learned == {"My cat plays<|endoftext|>", "My dog<|endoftext|>", "Old~}"}


def test_titles_alone_of_dynamic_records(tokenizer: Tokenizer) -> None:
    learned = [
        tokenizer.decode([token for token in row if token != IGNORED_TARGET])
        for _, targets in taken(dynamic(tokenizer), 0, 5, 8, titles_only=True)
        for row in targets.tolist()
    ]
    assert sorted(learned) == sorted(f"Cat {number}<|endoftext|>" for number in range(40))
