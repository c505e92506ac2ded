import hashlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from redditgen.titles.splits import hash_position, is_held_out, part_number

TITLES = [f"title {number}" for number in range(2000)]


def test_titles_are_held_out_by_their_text_and_the_seed() -> None:
    held_out = {title for title in TITLES if is_held_out(title, 0.1, seed=0)}
    assert 150 < len(held_out) < 250
    assert held_out == {title for title in reversed(TITLES) if is_held_out(title, 0.1, seed=0)}
    assert held_out < {title for title in TITLES if is_held_out(title, 0.2, seed=0)}
    other = {title for title in TITLES if is_held_out(title, 0.1, seed=1)}
    assert len(held_out & other) < 60
    assert not any(is_held_out(title, 0.0, seed=0) for title in TITLES)
    assert np.mean([is_held_out(title, 0.999, seed=0) for title in TITLES]) > 0.99


def test_any_title_has_a_place() -> None:
    """Half a pair has no UTF-8."""
    assert all(0 <= hash_position(title, 0) < 1 for title in ("", "\ud800", "🎉", "a" * 10_000))


@given(st.text(), st.floats(0, 1, exclude_max=True), st.integers(0, 99))
def test_a_run_of_an_earlier_version_goes_on_with_the_titles_it_held_out(
    title: str, fraction: float, seed: int
) -> None:
    """All 64 bits of the digest decided then."""
    digest = hashlib.blake2b(f"{seed}:{title}".encode(), digest_size=8).digest()
    assert is_held_out(title, fraction, seed) == (int.from_bytes(digest) < fraction * 2**64)


def test_a_title_falls_somewhere_from_0_to_below_1() -> None:
    places = [hash_position(title, 0) for title in TITLES]
    assert 0 <= min(places) < 0.01 < 0.99 < max(places) < 1
    assert len(set(places)) == len(TITLES)


def test_a_part_is_the_share_that_a_title_falls_in() -> None:
    for title in TITLES:
        at = hash_position(title, 7)
        assert part_number(title, [0.1, 0.2], 7) == (1 if at < 0.1 else 2 if at < 0.1 + 0.2 else 0)
        assert part_number(title, [], 7) == 0
        assert (part_number(title, [0.1], 7) == 1) == is_held_out(title, 0.1, 7)
