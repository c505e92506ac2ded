"""Checks whether generated titles contain the keywords that were requested for them.

A title contains a keyword if it contains every part of it (`old-cat` has two parts). It contains a part if one of its
words has the same lemma or the same spelling; case is ignored.
"""

from collections.abc import Iterable, Sequence

from redditgen.titles.keywords import normalise_keyword
from redditgen.titles.spacy_keywords import DEFAULT_MODEL, word_form_finder

_MAX_CACHED_KEYWORDS = 10_000  # parsed keywords; when there are more, the cache is emptied


class KeywordMatcher:
    """Finds keywords in titles by spaCy's lemmas; caches the lemmas of keywords."""

    def __init__(self, model: str = DEFAULT_MODEL) -> None:
        """Load a spaCy model. Raises MissingError where it is not installed, InputError where it does not load."""
        self._word_forms = word_form_finder(model)
        self._keyword_parts: dict[str, list[frozenset[str]]] = {}

    def find_held(self, asked: Sequence[Sequence[str]], titles: Sequence[str]) -> list[list[bool]]:
        """Return, for each title, which of its requested keywords it contains.

        `asked` holds a list of keywords for each title; the result has the same shape.
        """
        self._cache_keywords({keyword for keywords in asked for keyword in keywords})
        held = []
        for keywords, words in zip(asked, self._word_forms(titles), strict=True):
            forms = frozenset(_split_forms(form for word in words for form in word))
            held.append([all(part & forms for part in self._keyword_parts[keyword]) for keyword in keywords])
        return held

    def _cache_keywords(self, keywords: set[str]) -> None:
        """Add to the cache the word forms of each part of the keywords that are not in it."""
        if len(self._keyword_parts) > _MAX_CACHED_KEYWORDS:
            self._keyword_parts.clear()
        new = sorted(keywords - self._keyword_parts.keys())
        for keyword, words in zip(new, self._word_forms([keyword.replace("-", " ") for keyword in new]), strict=True):
            forms = (frozenset(_split_forms(word)) for word in words)
            self._keyword_parts[keyword] = [form for form in forms if form]


def _split_forms(forms: Iterable[str]) -> Iterable[str]:
    """Yield word forms split and normalised as keywords are: `e-mail` has two parts."""
    return (part for form in forms for part in normalise_keyword(form).split("-") if part)
