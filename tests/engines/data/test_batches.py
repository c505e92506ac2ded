import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from redditgen.engines.data.batches import (
    IGNORED_TARGET,
    POOL_BATCHES,
    Sequences,
    batches_by_length,
    pad_batch,
    shuffle_into_pools,
    title_mask,
)

rows = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=6), min_size=1, max_size=30)


@given(st.lists(st.lists(st.integers(0, 50_256), max_size=6), max_size=30))
def test_sequences_hold_the_rows_they_are_made_of(rows: list[list[int]]) -> None:
    sequences = Sequences.from_rows(rows)
    assert [sequences[index].tolist() for index in range(len(sequences))] == rows
    assert sequences.lengths.tolist() == [len(row) for row in rows]


@given(st.lists(st.lists(st.lists(st.integers(0, 9), max_size=6), max_size=5), max_size=4))
def test_joined_sequences_are_those_of_all_their_rows(parts: list[list[list[int]]]) -> None:
    joined, whole = (
        Sequences.joined([Sequences.from_rows(part) for part in parts]),
        Sequences.from_rows([row for part in parts for row in part]),
    )
    assert joined.ids.tolist() == whole.ids.tolist()
    assert joined.starts.tolist() == whole.starts.tolist()
    assert (joined.ids.dtype, joined.starts.dtype) == (whole.ids.dtype, whole.starts.dtype)


@given(rows, st.data())
def test_taken_sequences_are_those_of_their_numbers(rows: list[list[int]], data: st.DataObject) -> None:
    numbers = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=9))
    taken = Sequences.from_rows(rows).take(np.array(numbers, dtype=np.int64))
    assert [taken[index].tolist() for index in range(len(taken))] == [rows[number] for number in numbers]


@given(st.integers(0, 5000), st.integers(1, 8), st.integers(0, 5))
def test_the_pools_of_an_epoch_hold_every_number_once(count: int, size: int, seed: int) -> None:
    made = shuffle_into_pools(count, size, np.random.default_rng(seed))
    assert sorted(number for pool in made for number in pool.tolist()) == list(range(count))
    assert [len(pool) for pool in made[:-1]] == [POOL_BATCHES * size] * (len(made) - 1)
    again = shuffle_into_pools(count, size, np.random.default_rng(seed))
    assert [pool.tolist() for pool in made] == [pool.tolist() for pool in again]


@given(rows, st.integers(1, 8), st.integers(0, 5))
def test_a_pool_holds_every_sequence_once(rows: list[list[int]], size: int, seed: int) -> None:
    lengths = Sequences.from_rows(rows).lengths
    made = batches_by_length(lengths, size, np.random.default_rng(seed))
    assert sorted(index for batch in made for index in batch.tolist()) == list(range(len(rows)))
    assert sorted(len(batch) for batch in made)[1:] == [size] * (len(made) - 1)
    again = batches_by_length(lengths, size, np.random.default_rng(seed))
    assert [batch.tolist() for batch in made] == [batch.tolist() for batch in again]


def test_a_batch_holds_sequences_of_similar_length_and_their_order_is_random() -> None:
    lengths = np.random.default_rng(0).permutation(POOL_BATCHES * 4).astype(np.int64)
    made = batches_by_length(lengths, 4, np.random.default_rng(0))
    assert all(np.ptp(lengths[batch]) == 3 for batch in made)  # four neighbours each
    shortest = [int(lengths[batch].min()) for batch in made]
    assert shortest != sorted(shortest)
    other = batches_by_length(lengths, 4, np.random.default_rng(1))
    assert [int(lengths[batch].min()) for batch in other] != shortest


def test_targets_are_the_next_tokens_and_count_for_nothing_beyond_a_rows_end() -> None:
    sequences = Sequences.from_rows([[7, 8, 9, 10], [1], [5, 0, 6]])
    inputs, targets = pad_batch(sequences, np.array([2, 0]))
    assert inputs.tolist() == [[5, 0, 6], [7, 8, 9]]
    assert targets.tolist() == [[0, 6, IGNORED_TARGET], [8, 9, 10]]
    assert targets.dtype == inputs.dtype


@given(rows)
def test_every_pad_is_a_token_and_every_next_token_a_target(rows: list[list[int]]) -> None:
    inputs, targets = pad_batch(Sequences.from_rows(rows), np.arange(len(rows)))
    assert inputs.min() >= 0 if inputs.numel() else True
    assert [[t for t in row if t != IGNORED_TARGET] for row in targets.tolist()] == [row[1:] for row in rows]


def test_a_target_is_in_the_title_if_its_own_token_is() -> None:
    _, targets = pad_batch(Sequences.from_rows([[1, 2, 3, 4, 5], [1, 2, 3], [1, 2]]), np.arange(3))
    found = title_mask(targets, np.array([2, 1, 2], np.int32), np.array([4, 3, 2], np.int32))
    assert targets.masked_fill(~found, 0).tolist() == [[0, 3, 4, 0], [2, 3, 0, 0], [0, 0, 0, 0]]
