"""Filters that refuse generated titles, each with a name for the fault that it finds.

A filter is a function that takes candidates and returns a list of the same length: for each candidate the name of its
fault, or None. Filters are applied one after another, and each one sees only the candidates that passed those before
it, so the cheap ones come first.
"""

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
    """A record that may become a title, and the prompt that it was sampled for."""

    record: Record
    prompt: Prompt

    @property
    def title(self) -> str:
        return self.record.title or ""


Faults = list[str | None]  # for each candidate the name of its fault, or None
Filter = Callable[[Sequence[Candidate]], Faults]


def find_faults(candidates: Sequence[Candidate], filters: Iterable[Filter]) -> Faults:
    """Return for each candidate the fault that the first filter to refuse it finds, or None where all accept it."""
    faults: Faults = [None] * len(candidates)
    for check in filters:
        passed = [number for number, fault in enumerate(faults) if fault is None]
        found = check([candidates[number] for number in passed]) if passed else ()
        for number, fault in zip(passed, found, strict=True):
            faults[number] = fault
    return faults


def blocked_categories(settings: GenerateSettings) -> frozenset[str]:
    """Return the categories that --sfw leaves out, normalised as in records; empty without --sfw."""
    return (
        frozenset(map(keyword_rules.normalise_category, filter_lists.blocked_subreddits("", sfw=True)))
        if settings.sfw
        else frozenset()
    )


def choose_filters(
    settings: GenerateSettings, run: ModelDir, blocked: Collection[str], *, is_raw: bool
) -> list[Filter]:
    """Return the filters that the settings ask for, cheap ones first.

    Only the safe-for-work filter applies to raw text (`is_raw`), which is text after a prefix, or of a run trained on
    plain text.

    Raises UsageError where the settings ask for another filter on raw text, and RedditgenError where a filter's word
    list, title index or spaCy model is missing or can't be read.
    """
    chosen: list[Filter] = [safe_for_work_filter(settings.words, blocked)] if settings.sfw else []
    if is_raw:
        _refuse_title_filters(settings)
        return chosen
    if settings.min_words or settings.max_words:
        chosen.insert(0, _length_filter(settings.min_words or 0, settings.max_words))
    if index := _load_title_index(settings, run):
        chosen.append(_novelty_filter(index, settings.novel_threshold))
    if settings.require_keywords:
        chosen.append(_keyword_filter())
    return chosen


def _length_filter(min_words: int, max_words: int | None) -> Filter:
    def find_fault(title: str) -> str | None:
        words = len(title.split())
        if words < min_words:
            return TOO_SHORT
        return TOO_LONG if max_words is not None and words > max_words else None

    return lambda candidates: [find_fault(candidate.title) for candidate in candidates]


def _refuse_title_filters(settings: GenerateSettings) -> None:
    """Raise UsageError where the settings ask for a filter that raw text can't have."""
    for name in ("require_keywords", "novel", "min_words", "max_words"):
        if getattr(settings, name):
            option = f"--{name.replace('_', '-')}"
            raise UsageError(f"{option}: is about titles, and a prefix or a run of plain text makes none; leave it out")


def safe_for_work_filter(words: Path | None, blocked: Collection[str] = ()) -> Filter:
    """Return a filter that refuses titles with a word from a list, and titles of the `blocked` categories.

    The list is the file `words`, by default the one that fetch uses. Arrow matches words with RE2, as DuckDB does in
    fetch. Raises InputError where the file is not a word list, or is empty.
    """
    pattern = filter_lists.word_list_pattern(words)

    def find_unsafe(candidates: Sequence[Candidate]) -> Faults:
        import pyarrow.compute as pc

        titles = _string_array([candidate.title for candidate in candidates])
        hits = pc.match_substring_regex(titles, pattern).to_pylist()
        are_blocked = (candidate.record.category in blocked for candidate in candidates)
        return [UNSAFE if hit or is_blocked else None for hit, is_blocked in zip(hits, are_blocked, strict=True)]

    return find_unsafe


def _string_array(texts: Sequence[str]) -> "pa.StringArray":
    """Build an Arrow array from its buffers, since `pa.array` would import pandas."""
    import pyarrow as pa

    encoded = [text.encode("utf8") for text in texts]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    return pa.StringArray.from_buffers(len(texts), pa.py_buffer(ends), pa.py_buffer(b"".join(encoded)))


def _load_title_index(settings: GenerateSettings, run: ModelDir) -> TitleIndex | None:
    """Load the index of the titles that the run was trained on.

    Returns None where the settings turn the novelty filter off, or leave it open and the run has no index. Raises
    MissingError where they ask for it and the run has no index.
    """
    if settings.novel is False:
        return None
    try:
        return TitleIndex.load(run.path)
    except MissingError:
        if settings.novel:
            raise
        return None


def _novelty_filter(index: TitleIndex, threshold: float) -> Filter:
    faults = {"exact": COPY, "near": NEAR_COPY}

    def find_copies(candidates: Sequence[Candidate]) -> Faults:
        matches = index.find_copies([candidate.title for candidate in candidates], threshold)
        return [faults[match.kind] if match else None for match in matches]

    return find_copies


def _keyword_filter() -> Filter:
    from redditgen.titles.keyword_match import KeywordMatcher

    matcher = KeywordMatcher()

    def find_lacking(candidates: Sequence[Candidate]) -> Faults:
        # The text of the prompt, and so the record, may hold only some of the prompt's keywords.
        requested = [
            (candidate.record.keywords or "").split() if candidate.prompt.keywords else [] for candidate in candidates
        ]
        return [
            None if all(held) else LACKING_KEYWORDS
            for held in matcher.find_held(requested, [candidate.title for candidate in candidates])
        ]

    return find_lacking


class SeenTitles:
    """The titles of one output, kept as 8-byte hashes.

    Among a million titles, the chance that any two share a hash is 1 in 40 million.
    """

    def __init__(self, keys: Iterable[str] = ()) -> None:
        """Start with the titles whose keys, as `title_key` returns them, are given."""
        self._hashes = {int(key, 16) for key in keys}

    def is_new(self, title: str) -> bool:
        """Add a title, and return whether no title with the same key was added before."""
        count_before = len(self._hashes)
        self._hashes.add(int(title_key(title), 16))
        return len(self._hashes) > count_before


def title_key(title: str) -> str:
    """Return a title's hash as 16 hex digits; titles that differ only in case, punctuation or blanks share it."""
    return blake2b(normalise_title(title).encode("utf8", "surrogatepass"), digest_size=8).hexdigest()
