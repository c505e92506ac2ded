"""Encodes rows as records, each with keywords drawn from those of its title.

All that is drawn depends on the seed and the row's number alone.
"""

import json
from collections.abc import Collection, Iterator, Sequence
from random import Random

from redditgen.encode.batches import EncodeBatch
from redditgen.encode.title_rows import TitleRow
from redditgen.settings import EncodeSettings
from redditgen.titles.keyword_draws import draw_keywords
from redditgen.titles.keywords import normalise_keyword
from redditgen.titles.listing_keywords import split_ready_keywords
from redditgen.titles.record import Record, build
from redditgen.titles.spacy_keywords import FindKeywords, keyword_finder

# The number of the part of --split, 0 for the training part, and a line with its line break.
EncodedLine = tuple[int, str]


class Encoder:
    """Encodes batches. There is one in this process, or one in each ray actor.

    `only` holds the keywords that records may have, normalised and in lower case; None allows all.
    """

    def __init__(self, settings: EncodeSettings, only: Collection[str] | None) -> None:
        self._settings = settings
        self._allowed = only
        self._find_keywords = _ready_keywords(settings) if settings.keywords_field else _spacy_keywords(settings)

    def encode(self, job: EncodeBatch) -> tuple[int, list[EncodedLine]]:
        """Return the number of the batch's group, and its lines."""
        texts = list(dict.fromkeys(row.source for row in job.rows))
        found = map(self._keep_allowed, self._find_keywords(texts))
        keywords = dict(zip(texts, found, strict=True))
        return job.group, [(row.part, line) for row in job.rows for line in self._lines(row, keywords[row.source])]

    def _keep_allowed(self, keywords: tuple[str, ...]) -> tuple[str, ...]:
        if self._allowed is None:
            return keywords
        return tuple(keyword for keyword in keywords if normalise_keyword(keyword).casefold() in self._allowed)

    def _lines(self, row: TitleRow, keywords: tuple[str, ...]) -> Iterator[str]:
        """Yield a JSON object with all keywords, or `repeat` records, each with its own draw of keywords."""
        settings = self._settings
        if settings.dynamic:
            yield _json_line(row, keywords)
            return
        random = Random(f"{settings.seed} row {row.number}")
        for _ in range(settings.repeat):
            drawn = draw_keywords(random, keywords, settings.min_keywords, settings.max_keywords)
            yield build(Record(category=row.category, keywords=drawn, title=row.title, body=row.body)) + "\n"


def _json_line(row: TitleRow, keywords: tuple[str, ...]) -> str:
    sections = {"category": row.category, "keywords": keywords, "title": row.title, "body": row.body}
    present = {name: value for name, value in sections.items() if value is not None}
    return json.dumps(present, ensure_ascii=False) + "\n"


def _spacy_keywords(settings: EncodeSettings) -> FindKeywords:
    return keyword_finder(settings.spacy_model, settings.keyword_length_max, as_listing=settings.compat is not None)


def _ready_keywords(settings: EncodeSettings) -> FindKeywords:
    """Return a function that splits the texts of a column of ready keywords."""

    def find(texts: Sequence[str]) -> list[tuple[str, ...]]:
        if settings.compat:
            return [split_ready_keywords(text, settings.keyword_sep) for text in texts]
        keyword_lists = (map(normalise_keyword, text.split(settings.keyword_sep)) for text in texts)
        return [tuple(dict.fromkeys(keyword for keyword in keywords if keyword)) for keywords in keyword_lists]

    return find
