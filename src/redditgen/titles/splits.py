"""Assigns titles to dataset splits by a hash of their text, so that all repeats of a title are in one split.

A title's hash is a position in [0, 1); a split is an interval of positions. So the assignment needs no list of titles
and does not change when others are added.
"""

import hashlib
from collections.abc import Iterable


def hash_position(title: str, seed: int) -> float:
    """Return the position of a title in [0, 1): its BLAKE2b hash with a seed, uniformly distributed."""
    digest = hashlib.blake2b(f"{seed}:{title}".encode("utf8", "surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(digest) >> 11) / 2**53  # 53 bits, which a float holds exactly, so that it is below 1


def is_held_out(title: str, fraction: float, seed: int) -> bool:
    """Return whether a title is held out: whether its position is below `fraction`."""
    return hash_position(title, seed) < fraction


def part_number(title: str, shares: Iterable[float], seed: int) -> int:
    """Return the number, from 1, of the share that a title falls in; 0 if the shares do not reach its position.

    Shares are fractions of all titles; each begins where the one before it ends.
    """
    position = hash_position(title, seed)
    end = 0.0
    for number, share in enumerate(shares, start=1):
        end += share
        if position < end:
            return number
    return 0
