"""Figures of what a run writes: whether it ends, holds keywords, copies, repeats itself, is as long as titles."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from redditgen.errors import MissingError
from redditgen.evaluation import measures
from redditgen.evaluation.measures import HELD_OUT, Figure, mean
from redditgen.evaluation.samples import Sample
from redditgen.generate.filters import Candidate, Filter, safe
from redditgen.generate.prompts import Prompt
from redditgen.generate.texts import UNFINISHED
from redditgen.gpt2.rundir import ModelDir
from redditgen.keyword_hits import Hits
from redditgen.markup import Record
from redditgen.novelty import Index
from redditgen.settings import EvaluateSettings

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Judge:
    """What figures of titles need; made before any text is, since some of it may not be there."""

    hits: Hits
    safe: Filter
    index: Index | None
    threshold: float
    """How alike a near copy is."""

    @classmethod
    def of(cls, settings: EvaluateSettings, run: ModelDir) -> "Judge":
        """Raises RedditgenError where a list or spaCy's model is not there or to be read."""
        return cls(Hits(), safe(settings.words), _index(run), settings.novel_threshold)


def _index(run: ModelDir) -> Index | None:
    try:
        return Index.load(run.path)
    except MissingError as error:
        _log.warning("novelty is not measured: %s", error)
        return None


def of_texts(samples: Sequence[Sample], seed: int) -> list[Figure]:
    """What share of the texts ended by itself, and what share was a whole title."""
    return [
        mean("ended", [sample.fault != UNFINISHED for sample in samples], seed=seed),
        mean("whole", [sample.fault is None for sample in samples], seed=seed),
    ]


def of_keywords(samples: Sequence[Sample], hits: Hits, seed: int) -> Iterator[Figure]:
    """What share of the keywords asked of a title it holds, and what share of titles holds all; none without any asked.

    By chance: what titles written for other prompts hold of the same keywords.
    """
    asking = [sample for sample in samples if sample.keywords]
    if not asking:
        return
    asked, titles = [sample.keywords for sample in asking], [sample.title for sample in asking]
    held = hits.held(asked, titles)
    for count in (None, *sorted(set(map(len, asked)))):
        some = [row for row in held if count in (None, len(row))]
        yield mean("keyword_hits", list(map(np.mean, some)), seed=seed, keywords=count)
        yield mean("all_keywords_held", list(map(all, some)), seed=seed, keywords=count)
    if len(asking) > 1:
        by_chance = hits.held(asked, titles[1:] + titles[:1])  # the prompts stand in random order
        yield mean("keyword_hits_by_chance", list(map(np.mean, by_chance)), seed=seed)


def of_novelty(titles: Sequence[str], index: Index, threshold: float, seed: int) -> list[Figure]:
    """What share of the titles is a copy of one that the run has learned from, or nearly."""
    kinds = [match and match.kind for match in index.similar_of(titles, threshold)]
    shares = {"copies": "exact", "near_copies": "near", "novel": None}
    return [mean(name, [kind == wanted for kind in kinds], seed=seed) for name, wanted in shares.items()]


def of_safety(titles: Sequence[str], real: Sequence[str], is_safe: Filter, seed: int) -> Iterator[Figure]:
    """What share of the titles a word list hits, as `generate --sfw` would leave them out."""
    for some, of in ((titles, measures.GENERATED), (real, HELD_OUT)):
        found = is_safe([Candidate(Record(title=title), Prompt()) for title in some])
        yield mean("unsafe", [fault is not None for fault in found], seed=seed, of=of)


def of_variety(titles: Sequence[str], real: Sequence[str]) -> Iterator[Figure]:
    """Duplicates; distinct words and pairs of words, which fall with the number of titles, so it is one for both."""
    yield Figure("duplicates", measures.duplicates(titles), len(titles))
    number = min(len(titles), len(real))
    for n in (1, 2):
        yield Figure(f"distinct_{n}", measures.distinct(titles[:number], n), number)
        yield Figure(f"distinct_{n}", measures.distinct(real[:number], n), number, HELD_OUT)


def of_lengths(titles: Sequence[str], real: Sequence[str], seed: int) -> Iterator[Figure]:
    """The lengths in words, and how far their distribution is from that of held-out titles."""
    counts = {measures.GENERATED: measures.word_counts(titles), HELD_OUT: measures.word_counts(real)}
    for of, words in counts.items():
        yield mean("words", words, seed=seed, of=of)
        for percent, value in zip(measures.QUANTILES, np.percentile(words, measures.QUANTILES), strict=True):
            yield Figure(f"words_p{percent}", float(value), len(words), of)
    yield Figure("words_gap", measures.largest_gap(*counts.values()), len(titles))


def figures(samples: Sequence[Sample], real: Sequence[str], judge: Judge, seed: int) -> list[Figure]:
    """All of them; the titles among the samples must be one or more, and so must the real ones."""
    whole = [sample for sample in samples if sample.fault is None]
    titles = [sample.title for sample in whole]
    return [
        *of_texts(samples, seed),
        *of_keywords(whole, judge.hits, seed),
        *(of_novelty(titles, judge.index, judge.threshold, seed) if judge.index else ()),
        *of_safety(titles, real, judge.safe, seed),
        *of_variety(titles, real),
        *of_lengths(titles, real, seed),
    ]
