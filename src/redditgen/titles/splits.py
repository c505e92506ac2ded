"""Which titles are held out: decided by each title's own text, so that all its repeats stand on one side."""

import hashlib
from collections.abc import Iterable


def hash_position(title: str, seed: int) -> float:
    """Where in [0, 1) a title falls, evenly and whatever stands around it."""
    digest = hashlib.blake2b(f"{seed}:{title}".encode("utf8", "surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(digest) >> 11) / 2**53  # what a float can hold, so below 1


def is_held_out(title: str, fraction: float, seed: int) -> bool:
    """Whether a title is in the first `fraction` of the places."""
    return hash_position(title, seed) < fraction


def part_number(title: str, shares: Iterable[float], seed: int) -> int:
    """The number, from 1, of the share that a title is in, the first share first; 0 if it is in none."""
    at = hash_position(title, seed)
    end = 0.0
    for number, share in enumerate(shares, start=1):
        end += share
        if at < end:
            return number
    return 0
