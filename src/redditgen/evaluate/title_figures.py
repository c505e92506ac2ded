"""Measures sampled titles: whether they end, hold their keywords, copy, repeat each other, and how long they are."""

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
    """The models and lists that figures of titles need; loaded before any text is sampled, since one may be missing."""

    matcher: KeywordMatcher
    safe: Filter
    index: TitleIndex | None
    threshold: float
    """Similarity, from 0 to 1, from which on a title is a near copy."""

    @classmethod
    def load(cls, settings: EvaluateSettings, run: ModelDir) -> "TitleChecks":
        """Load the checks. Raises RedditgenError where the word list or spaCy's model is missing or can't be read."""
        return cls(
            KeywordMatcher(), safe_for_work_filter(settings.words), _load_title_index(run), settings.novel_threshold
        )


def _load_title_index(run: ModelDir) -> TitleIndex | None:
    """Load the index of the titles that the run was trained on; None, with a warning, where the run has none."""
    try:
        return TitleIndex.load(run.path)
    except MissingError as error:
        _log.warning("novelty is not measured: %s", error)
        return None


def ending_figures(samples: Sequence[Sample], seed: int) -> list[Figure]:
    """Return the share of texts that end with the end token, and the share that are whole titles."""
    return [
        mean_figure("ended", [sample.fault != UNFINISHED for sample in samples], seed=seed),
        mean_figure("whole", [sample.fault is None for sample in samples], seed=seed),
    ]


def keyword_figures(samples: Sequence[Sample], matcher: KeywordMatcher, seed: int) -> Iterator[Figure]:
    """Yield the share of its requested keywords that a title holds, and the share of titles that hold all of theirs.

    Both are over all titles with keywords, and by the number of keywords; none without such titles. The hits by chance
    are the share of the same keywords in titles that were sampled for other prompts.
    """
    with_keywords = [sample for sample in samples if sample.keywords]
    if not with_keywords:
        return
    requested, titles = [sample.keywords for sample in with_keywords], [sample.title for sample in with_keywords]
    held = matcher.find_held(requested, titles)
    for count in (None, *sorted(set(map(len, requested)))):
        rows = [row for row in held if count in (None, len(row))]
        yield mean_figure("keyword_hits", list(map(np.mean, rows)), seed=seed, keywords=count)
        yield mean_figure("all_keywords_held", list(map(all, rows)), seed=seed, keywords=count)
    if len(with_keywords) > 1:
        # The prompts are in random order, so the next title is one for a random other prompt.
        by_chance = matcher.find_held(requested, titles[1:] + titles[:1])
        yield mean_figure("keyword_hits_by_chance", list(map(np.mean, by_chance)), seed=seed)


def novelty_figures(titles: Sequence[str], index: TitleIndex, threshold: float, seed: int) -> list[Figure]:
    """Return the shares of titles that copy a title the run was trained on, nearly copy one, and are novel."""
    kinds = [match and match.kind for match in index.find_copies(titles, threshold)]
    shares = {"copies": "exact", "near_copies": "near", "novel": None}
    return [mean_figure(name, [kind == wanted for kind in kinds], seed=seed) for name, wanted in shares.items()]


def safety_figures(titles: Sequence[str], real: Sequence[str], is_safe: Filter, seed: int) -> Iterator[Figure]:
    """Yield the share of generated and of held-out titles that `generate --sfw` would refuse for a word."""
    for group, of in ((titles, statistics.GENERATED), (real, HELD_OUT)):
        faults = is_safe([Candidate(Record(title=title), Prompt()) for title in group])
        yield mean_figure("unsafe", [fault is not None for fault in faults], seed=seed, of=of)


def variety_figures(titles: Sequence[str], real: Sequence[str]) -> Iterator[Figure]:
    """Yield the share of duplicates, and the shares of distinct words and of distinct pairs of words.

    Distinct shares fall as the number of titles grows, so they are measured on as many generated as held-out titles.
    """
    yield Figure("duplicates", statistics.duplicate_share(titles), len(titles))
    number = min(len(titles), len(real))
    for n in (1, 2):
        yield Figure(f"distinct_{n}", statistics.distinct_ngrams(titles[:number], n), number)
        yield Figure(f"distinct_{n}", statistics.distinct_ngrams(real[:number], n), number, HELD_OUT)


def length_figures(titles: Sequence[str], real: Sequence[str], seed: int) -> Iterator[Figure]:
    """Yield mean and percentiles of the words per title, and the distance between both groups' distributions."""
    counts = {statistics.GENERATED: statistics.word_counts(titles), HELD_OUT: statistics.word_counts(real)}
    for of, words in counts.items():
        yield mean_figure("words", words, seed=seed, of=of)
        for percent, value in zip(statistics.QUANTILES, np.percentile(words, statistics.QUANTILES), strict=True):
            yield Figure(f"words_p{percent}", float(value), len(words), of)
    yield Figure("words_gap", statistics.kolmogorov_smirnov(*counts.values()), len(titles))


def all_title_figures(samples: Sequence[Sample], real: Sequence[str], checks: TitleChecks, seed: int) -> list[Figure]:
    """Return all figures of this module.

    At least one sample must be a whole title, and there must be at least one held-out title in `real`.
    """
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
