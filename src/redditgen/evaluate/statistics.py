"""Computes figures from lists of titles and values, with 95% intervals where a figure is a mean over titles.

Intervals are percentiles over 1,000 bootstrap resamples of the titles.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from redditgen.titles.novelty import normalise_title

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

GENERATED, HELD_OUT = "generated", "held-out"
QUANTILES = (5, 25, 50, 75, 95)  # percentiles of the lengths of titles

_RESAMPLES = 1000
_INTERVAL = (2.5, 97.5)  # percentiles at its ends


@dataclass(frozen=True)
class Figure:
    """One measured value. `low` and `high` are its 95% interval where it is a mean over `number` titles or texts."""

    name: str
    value: float
    number: int
    of: str = GENERATED
    keywords: int | None = None
    """Where the figure is only about titles with this number of requested keywords: the number."""
    low: float | None = None
    high: float | None = None


def mean_figure(
    name: str, values: "ArrayLike", *, seed: int, of: str = GENERATED, keywords: int | None = None
) -> Figure:
    """Return the mean of `values`, one for each title, with its interval."""
    per_title = np.asarray(values, np.float64)
    value, low, high = ratio_with_interval(per_title, np.ones_like(per_title), seed)
    return Figure(name, value, len(per_title), of, keywords, low, high)


def ratio_with_interval(
    parts: "NDArray[np.float64]", wholes: "NDArray[np.float64]", seed: int
) -> tuple[float, float, float]:
    """Return sum(parts) / sum(wholes), and the ends of its interval over resampled titles.

    Both arrays are [titles]. Resamples whose wholes sum to 0 have no ratio and are left out.
    """
    rng, number = np.random.default_rng(seed), len(parts)
    ratios = []
    for _ in range(_RESAMPLES):
        resample = rng.integers(number, size=number)
        if whole := wholes[resample].sum():
            ratios.append(parts[resample].sum() / whole)
    low, high = np.percentile(ratios, _INTERVAL)
    return float(parts.sum() / wholes.sum()), float(low), float(high)


def sum_by_title(titles: Sequence[str], *columns: "NDArray[np.float64]") -> "list[NDArray[np.float64]]":
    """Sum each column, [records], over the records of each title; returns arrays [titles].

    The records of one title are not independent, so an interval has to resample them together.
    """
    numbers: dict[str, int] = {}
    title_numbers = np.array([numbers.setdefault(title, len(numbers)) for title in titles], np.int64)
    return [np.bincount(title_numbers, column, len(numbers)).astype(np.float64) for column in columns]


def distinct_ngrams(titles: Iterable[str], n: int) -> float:
    """Return the share of distinct n-grams among all n-grams of words; 0 where no title has `n` words."""
    ngrams = [ngram for title in titles for ngram in _ngrams(normalise_title(title).split(), n)]
    return len(set(ngrams)) / max(1, len(ngrams))


def _ngrams(words: Sequence[str], n: int) -> Iterable[tuple[str, ...]]:
    return zip(*(words[start:] for start in range(n)), strict=False)


def duplicate_share(titles: Sequence[str]) -> float:
    """Return the share of titles that repeat an earlier one, ignoring case, punctuation and blanks."""
    return 1 - len(set(map(normalise_title, titles))) / len(titles)


def word_counts(titles: Iterable[str]) -> list[int]:
    return [len(title.split()) for title in titles]


def kolmogorov_smirnov(some: Sequence[int], others: Sequence[int]) -> float:
    """Return the two-sample Kolmogorov-Smirnov statistic: the largest difference of the cumulative distributions."""
    values = np.union1d(some, others)
    shares = [np.searchsorted(np.sort(sample), values, "right") / len(sample) for sample in (some, others)]
    return float(np.abs(shares[0] - shares[1]).max())
