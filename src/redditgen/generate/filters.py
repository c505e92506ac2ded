"""What makes a text a title worth having: one filter after another, each with a name for what it takes."""

from collections.abc import Callable, Collection, Iterable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from redditgen.errors import MissingError, UsageError
from redditgen.generate.prompts import Prompt
from redditgen.gpt2.model_dir import ModelDir
from redditgen.settings import GenerateSettings
from redditgen.titles import filter_lists
from redditgen.titles import keywords as keyword_rules
from redditgen.titles.novelty import TitleIndex, normalise_title
from redditgen.titles.record import Record

if TYPE_CHECKING:
    import pyarrow as pa

TOO_SHORT, TOO_LONG, UNSAFE, LACKING_KEYWORDS = "too_short", "too_long", "unsafe", "lacking_keywords"
COPY, NEAR_COPY, DUPLICATE = "copy", "near_copy", "duplicate"


class Candidate(NamedTuple):
    """A record that may be a title worth having, and what was asked of it."""

    record: Record
    prompt: Prompt

    @property
    def title(self) -> str:
        return self.record.title or ""


Faults = list[str | None]  # for each candidate what keeps it from being wanted
Filter = Callable[[Sequence[Candidate]], Faults]


def find_faults(candidates: Sequence[Candidate], filters: Iterable[Filter]) -> Faults:
    """For each candidate the fault that the first filter to refuse it finds, or None."""
    found: Faults = [None] * len(candidates)
    for one in filters:
        left = [number for number, fault in enumerate(found) if fault is None]
        for number, fault in zip(left, one([candidates[number] for number in left]) if left else (), strict=True):
            found[number] = fault
    return found


def blocked_categories(settings: GenerateSettings) -> frozenset[str]:
    """Categories that --sfw leaves out, as they stand in records."""
    return (
        frozenset(map(keyword_rules.normalise_category, filter_lists.blocked_subreddits("", sfw=True)))
        if settings.sfw
        else frozenset()
    )


def choose_filters(
    settings: GenerateSettings, run: ModelDir, blocked: Collection[str], *, is_raw: bool
) -> list[Filter]:
    """Those that the settings ask for, cheap ones first; a raw text has only to be fit for work.

    Raises RedditgenError where one lacks what it needs.
    """
    chosen: list[Filter] = [safe_for_work_filter(settings.words, blocked)] if settings.sfw else []
    if is_raw:
        _refuse_for_raw(settings)
        return chosen
    if settings.min_words or settings.max_words:
        chosen.insert(0, _of_length(settings.min_words or 0, settings.max_words))
    if index := _index(settings, run):
        chosen.append(_novel(index, settings.novel_threshold))
    if settings.require_keywords:
        chosen.append(_holding_keywords())
    return chosen


def _of_length(least: int, most: int | None) -> Filter:
    def fault(title: str) -> str | None:
        number = len(title.split())
        if number < least:
            return TOO_SHORT
        return TOO_LONG if most is not None and number > most else None

    return lambda candidates: [fault(one.title) for one in candidates]


def _refuse_for_raw(settings: GenerateSettings) -> None:
    for name in ("require_keywords", "novel", "min_words", "max_words"):
        if getattr(settings, name):
            option = f"--{name.replace('_', '-')}"
            raise UsageError(f"{option}: is about titles, and a prefix or a run of plain text makes none; leave it out")


def safe_for_work_filter(words: Path | None, blocked: Collection[str] = ()) -> Filter:
    """By fetch's word list, or `words`, and by category; Arrow finds words with RE2, as DuckDB does."""
    pattern = filter_lists.word_list_pattern(words)

    def find(candidates: Sequence[Candidate]) -> Faults:
        import pyarrow.compute as pc

        hits = pc.match_substring_regex(_arrow([one.title for one in candidates]), pattern).to_pylist()
        are_blocked = (one.record.category in blocked for one in candidates)
        return [UNSAFE if hit or is_blocked else None for hit, is_blocked in zip(hits, are_blocked, strict=True)]

    return find


def _arrow(texts: Sequence[str]) -> "pa.StringArray":
    """By way of its buffers, since `pa.array` would import pandas."""
    import pyarrow as pa

    encoded = [text.encode("utf8") for text in texts]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    return pa.StringArray.from_buffers(len(texts), pa.py_buffer(ends), pa.py_buffer(b"".join(encoded)))


def _index(settings: GenerateSettings, run: ModelDir) -> TitleIndex | None:
    """That of the titles a run has learned, if it is wanted."""
    if settings.novel is False:
        return None
    try:
        return TitleIndex.load(run.path)
    except MissingError:
        if settings.novel:
            raise
        return None


def _novel(index: TitleIndex, threshold: float) -> Filter:
    faults = {"exact": COPY, "near": NEAR_COPY}

    def find(candidates: Sequence[Candidate]) -> Faults:
        matches = index.find_copies([one.title for one in candidates], threshold)
        return [faults[match.kind] if match else None for match in matches]

    return find


def _holding_keywords() -> Filter:
    from redditgen.titles.keyword_match import KeywordMatcher

    matcher = KeywordMatcher()

    def find(candidates: Sequence[Candidate]) -> Faults:
        asked = [(one.record.keywords or "").split() if one.prompt.keywords else [] for one in candidates]
        return [
            None if all(held) else LACKING_KEYWORDS
            for held in matcher.find_held(asked, [one.title for one in candidates])
        ]

    return find


class SeenTitles:
    """The titles of one output, by 8-byte hashes: of a million, two have the same with a chance of 1 in 40 million."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        """Those whose keys were given are seen already."""
        self._hashes = {int(key, 16) for key in keys}

    def is_new(self, title: str) -> bool:
        """Whether no title was alike before; from now on one was."""
        known = len(self._hashes)
        self._hashes.add(int(title_key(title), 16))
        return len(self._hashes) > known


def title_key(title: str) -> str:
    """The same for titles that differ in case, punctuation or blanks alone."""
    return blake2b(normalise_title(title).encode("utf8", "surrogatepass"), digest_size=8).hexdigest()
