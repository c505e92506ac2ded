"""Figures of what a run writes: whether it ends, holds keywords, copies, repeats itself, is as long as titles."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from redditgen.errors import MissingError
from redditgen.evaluate import statistics
from redditgen.evaluate.samples import Sample
from redditgen.evaluate.statistics import HELD_OUT, Figure, mean_figure
from redditgen.generate.filters import Candidate, Filter, safe_for_work_filter
from redditgen.generate.prompt_text import UNFINISHED
from redditgen.generate.prompts import Prompt
from redditgen.gpt2.model_dir import ModelDir
from redditgen.settings import EvaluateSettings
from redditgen.titles.keyword_match import KeywordMatcher
from redditgen.titles.novelty import TitleIndex
from redditgen.titles.record import Record

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TitleChecks:
    """What figures of titles need; made before any text is, since some of it may not be there."""

    matcher: KeywordMatcher
    safe: Filter
    index: TitleIndex | None
    threshold: float
    """How alike a near copy is."""

    @classmethod
    def load(cls, settings: EvaluateSettings, run: ModelDir) -> "TitleChecks":
        """Raises RedditgenError where a list or spaCy's model is not there or to be read."""
        return cls(KeywordMatcher(), safe_for_work_filter(settings.words), _index(run), settings.novel_threshold)


def _index(run: ModelDir) -> TitleIndex | None:
    try:
        return TitleIndex.load(run.path)
    except MissingError as error:
        _log.warning("novelty is not measured: %s", error)
        return None


def ending_figures(samples: Sequence[Sample], seed: int) -> list[Figure]:
    """What share of the texts ended by itself, and what share was a whole title."""
    return [
        mean_figure("ended", [sample.fault != UNFINISHED for sample in samples], seed=seed),
        mean_figure("whole", [sample.fault is None for sample in samples], seed=seed),
    ]


def keyword_figures(samples: Sequence[Sample], matcher: KeywordMatcher, seed: int) -> Iterator[Figure]:
    """What share of the keywords asked of a title it holds, and what share of titles holds all; none without any asked.

    By chance: what titles written for other prompts hold of the same keywords.
    """
    asking = [sample for sample in samples if sample.keywords]
    if not asking:
        return
    asked, titles = [sample.keywords for sample in asking], [sample.title for sample in asking]
    held = matcher.find_held(asked, titles)
    for count in (None, *sorted(set(map(len, asked)))):
        some = [row for row in held if count in (None, len(row))]
        yield mean_figure("keyword_hits", list(map(np.mean, some)), seed=seed, keywords=count)
        yield mean_figure("all_keywords_held", list(map(all, some)), seed=seed, keywords=count)
    if len(asking) > 1:
        by_chance = matcher.find_held(asked, titles[1:] + titles[:1])  # the prompts stand in random order
        yield mean_figure("keyword_hits_by_chance", list(map(np.mean, by_chance)), seed=seed)


def novelty_figures(titles: Sequence[str], index: TitleIndex, threshold: float, seed: int) -> list[Figure]:
    """What share of the titles is a copy of one that the run has learned from, or nearly."""
    kinds = [match and match.kind for match in index.find_copies(titles, threshold)]
    shares = {"copies": "exact", "near_copies": "near", "novel": None}
    return [mean_figure(name, [kind == wanted for kind in kinds], seed=seed) for name, wanted in shares.items()]


def safety_figures(titles: Sequence[str], real: Sequence[str], is_safe: Filter, seed: int) -> Iterator[Figure]:
    """What share of the titles a word list hits, as `generate --sfw` would leave them out."""
    for some, of in ((titles, statistics.GENERATED), (real, HELD_OUT)):
        found = is_safe([Candidate(Record(title=title), Prompt()) for title in some])
        yield mean_figure("unsafe", [fault is not None for fault in found], seed=seed, of=of)


def variety_figures(titles: Sequence[str], real: Sequence[str]) -> Iterator[Figure]:
    """Duplicates; distinct words and pairs of words, which fall with the number of titles, so it is one for both."""
    yield Figure("duplicates", statistics.duplicate_share(titles), len(titles))
    number = min(len(titles), len(real))
    for n in (1, 2):
        yield Figure(f"distinct_{n}", statistics.distinct_ngrams(titles[:number], n), number)
        yield Figure(f"distinct_{n}", statistics.distinct_ngrams(real[:number], n), number, HELD_OUT)


def length_figures(titles: Sequence[str], real: Sequence[str], seed: int) -> Iterator[Figure]:
    """The lengths in words, and how far their distribution is from that of held-out titles."""
    counts = {statistics.GENERATED: statistics.word_counts(titles), HELD_OUT: statistics.word_counts(real)}
    for of, words in counts.items():
        yield mean_figure("words", words, seed=seed, of=of)
        for percent, value in zip(statistics.QUANTILES, np.percentile(words, statistics.QUANTILES), strict=True):
            yield Figure(f"words_p{percent}", float(value), len(words), of)
    yield Figure("words_gap", statistics.kolmogorov_smirnov(*counts.values()), len(titles))


def all_title_figures(samples: Sequence[Sample], real: Sequence[str], checks: TitleChecks, seed: int) -> list[Figure]:
    """All of them; the titles among the samples must be one or more, and so must the real ones."""
    whole = [sample for sample in samples if sample.fault is None]
    titles = [sample.title for sample in whole]
    return [
        *ending_figures(samples, seed),
        *keyword_figures(whole, checks.matcher, seed),
        *(novelty_figures(titles, checks.index, checks.threshold, seed) if checks.index else ()),
        *safety_figures(titles, real, checks.safe, seed),
        *variety_figures(titles, real),
        *length_figures(titles, real, seed),
    ]
