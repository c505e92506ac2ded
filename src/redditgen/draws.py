"""Keywords drawn for one copy of a title."""

from collections.abc import Sequence
from random import Random


def draw(random: Random, keywords: Sequence[str], least: int, most: int) -> str:
    """From `least` to `most` of the keywords, as many as there are, in random order with blanks between."""
    count = min(random.randint(least, most), len(keywords))
    return " ".join(random.sample(keywords, count))
