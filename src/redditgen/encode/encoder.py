"""Rows to records, each with its draws of keywords. Everything drawn comes from the seed and the row's number."""

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

# The number of the part of --split, and a line with its line break.
EncodedLine = tuple[int, str]


class Encoder:
    """One in this process, or one in each of ray's; `only` are the keywords that may be, all of them if it is None."""

    def __init__(self, settings: EncodeSettings, only: Collection[str] | None) -> None:
        self._settings = settings
        self._only = only
        self._find = _ready_keywords(settings) if settings.keywords_field else _spacy_keywords(settings)

    def encode(self, job: EncodeBatch) -> tuple[int, list[EncodedLine]]:
        """The job's window and its lines."""
        texts = list(dict.fromkeys(row.source for row in job.rows))
        found = dict(zip(texts, map(self._listed, self._find(texts)), strict=True))
        return job.window, [(row.part, line) for row in job.rows for line in self._lines(row, found[row.source])]

    def _listed(self, keywords: tuple[str, ...]) -> tuple[str, ...]:
        if self._only is None:
            return keywords
        return tuple(keyword for keyword in keywords if normalise_keyword(keyword).casefold() in self._only)

    def _lines(self, row: TitleRow, keywords: tuple[str, ...]) -> Iterator[str]:
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
    there = {name: value for name, value in sections.items() if value is not None}
    return json.dumps(there, ensure_ascii=False) + "\n"


def _spacy_keywords(settings: EncodeSettings) -> FindKeywords:
    return keyword_finder(settings.spacy_model, settings.keyword_length_max, as_listing=settings.compat is not None)


def _ready_keywords(settings: EncodeSettings) -> FindKeywords:
    def find(texts: Sequence[str]) -> list[tuple[str, ...]]:
        if settings.compat:
            return [split_ready_keywords(text, settings.keyword_sep) for text in texts]
        split = (map(normalise_keyword, text.split(settings.keyword_sep)) for text in texts)
        return [tuple(dict.fromkeys(keyword for keyword in keywords if keyword)) for keywords in split]

    return find
