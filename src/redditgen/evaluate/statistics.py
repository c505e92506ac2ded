"""Figures of a run, from plain lists: values, and 95% intervals by bootstrap where a value is a mean over titles."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from redditgen.titles.novelty import normalise_title

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

GENERATED, HELD_OUT = "generated", "held-out"
QUANTILES = (5, 25, 50, 75, 95)  # percent of the titles

_RESAMPLES = 1000
_TAILS = (2.5, 97.5)  # percent outside the interval


@dataclass(frozen=True)
class Figure:
    """One measured value; `low` and `high` hold its 95% interval where it is a mean over `number` titles or texts."""

    name: str
    value: float
    number: int
    of: str = GENERATED
    keywords: int | None = None
    """How many keywords were asked of the titles, where it is about those alone."""
    low: float | None = None
    high: float | None = None


def mean_figure(
    name: str, values: "ArrayLike", *, seed: int, of: str = GENERATED, keywords: int | None = None
) -> Figure:
    """The mean of a value a title."""
    parts = np.asarray(values, np.float64)
    value, low, high = ratio_with_interval(parts, np.ones_like(parts), seed)
    return Figure(name, value, len(parts), of, keywords, low, high)


def ratio_with_interval(
    parts: "NDArray[np.float64]", wholes: "NDArray[np.float64]", seed: int
) -> tuple[float, float, float]:
    """The sum of the parts over that of the wholes, and its interval over resampled titles, which have one of each.

    Where resamples have no wholes at all, they say nothing and are left out.
    """
    rng, number = np.random.default_rng(seed), len(parts)
    drawn = []
    for _ in range(_RESAMPLES):
        some = rng.integers(number, size=number)
        if whole := wholes[some].sum():
            drawn.append(parts[some].sum() / whole)
    low, high = np.percentile(drawn, _TAILS)
    return float(parts.sum() / wholes.sum()), float(low), float(high)


def sum_by_title(titles: Sequence[str], *columns: "NDArray[np.float64]") -> "list[NDArray[np.float64]]":
    """Each column summed over the records of a title: they are not independent, so an interval draws them together."""
    numbers: dict[str, int] = {}
    of_record = np.array([numbers.setdefault(title, len(numbers)) for title in titles], np.int64)
    return [np.bincount(of_record, column, len(numbers)).astype(np.float64) for column in columns]


def distinct_ngrams(titles: Iterable[str], n: int) -> float:
    """The share of different ones among all runs of `n` words; 0 where no title is so long."""
    runs = [run for title in titles for run in _runs(normalise_title(title).split(), n)]
    return len(set(runs)) / max(1, len(runs))


def _runs(words: Sequence[str], n: int) -> Iterable[tuple[str, ...]]:
    return zip(*(words[start:] for start in range(n)), strict=False)


def duplicate_share(titles: Sequence[str]) -> float:
    """The share of titles that another one before them is equal to, but for case, punctuation and blanks."""
    return 1 - len(set(map(normalise_title, titles))) / len(titles)


def word_counts(titles: Iterable[str]) -> list[int]:
    return [len(title.split()) for title in titles]


def kolmogorov_smirnov(some: Sequence[int], others: Sequence[int]) -> float:
    """The two-sample Kolmogorov-Smirnov statistic: by how much the shares up to a value differ at most."""
    values = np.union1d(some, others)
    shares = [np.searchsorted(np.sort(sample), values, "right") / len(sample) for sample in (some, others)]
    return float(np.abs(shares[0] - shares[1]).max())
