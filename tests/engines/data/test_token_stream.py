from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redditgen.engines.data.token_stream import TokenStream


def stream_of(lengths: list[int]) -> TokenStream:
    """Chunks of these lengths whose tokens count on, so that a token tells its place."""
    tokens = np.arange(sum(lengths), dtype=np.int32)
    return TokenStream(tuple(np.split(tokens, list(accumulate(lengths))[:-1])))


@given(st.lists(st.integers(0, 12), min_size=1, max_size=6), st.integers(1, 12), st.integers(0, 3), st.integers(1, 5))
def test_every_window_lies_in_one_chunk(lengths: list[int], length: int, seed: int, step: int) -> None:
    stream = stream_of(lengths)
    assert stream.tokens == sum(lengths)
    windows = [
        (start, start + length)
        for end, chunk in zip(accumulate(lengths), lengths, strict=True)
        for start in range(end - chunk, end - length + 1)
    ]
    assert stream.window_count(length) == len(windows)
    if not windows:
        return
    drawn = stream.windows(40, length, seed=seed, step=step)
    assert drawn.shape == (40, length)
    assert drawn.dtype == np.int32
    assert {tuple(row) for row in drawn.tolist()} <= {tuple(range(start, end)) for start, end in windows}


def test_each_place_is_drawn_about_equally_often() -> None:
    """Pearson's chi-squared over the 14 places; of chance alone it is above 34.5 once in a thousand seeds."""
    stream, length = stream_of([7, 3, 12, 4, 0]), 4
    assert stream.window_count(length) == 4 + 0 + 9 + 1
    drawn = np.concatenate([stream.windows(100, length, seed=0, step=step)[:, 0] for step in range(1, 71)])
    places, counts = np.unique(drawn, return_counts=True)
    assert places.tolist() == [0, 1, 2, 3, *range(10, 19), 22]
    expected = len(drawn) / 14
    assert ((counts - expected) ** 2 / expected).sum() < 34.5


def test_windows_follow_from_the_seed_and_the_step_alone() -> None:
    stream = stream_of([500])
    first = stream.windows(8, 5, seed=1, step=3)
    stream.windows(100, 9, seed=1, step=2)
    assert (stream.windows(8, 5, seed=1, step=3) == first).all()
    assert (stream.windows(3, 5, seed=1, step=3) == first[:3]).all()
    for seed, step in ((1, 4), (2, 3), (13, 3), (3, 1)):
        assert (stream.windows(8, 5, seed=seed, step=step) != first).any()


def test_the_draws_of_a_step_never_change() -> None:
    """The draws themselves are fixed, since a run may be gone on with by the other engine, or a later version."""
    assert stream_of([50, 60]).windows(6, 10, seed=7, step=20)[:, 0].tolist() == [96, 53, 21, 87, 29, 11]


def test_a_chunk_without_a_place_is_no_reason_to_fail() -> None:
    assert stream_of([3, 5, 2]).windows(2, 5, seed=0, step=1).tolist() == [[3, 4, 5, 6, 7]] * 2
    with pytest.raises(ValueError, match="empty range"):
        stream_of([3]).windows(1, 5, seed=0, step=1)
