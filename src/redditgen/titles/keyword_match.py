"""Whether a title holds the keywords that were asked for.

It holds one if every part of it (`old-cat` has two) stands in the title as a word of the same lemma, or written alike,
whatever its case.
"""

from collections.abc import Iterable, Sequence

from redditgen.titles.keywords import normalise_keyword
from redditgen.titles.spacy_keywords import DEFAULT_MODEL, word_form_finder

_KEYWORDS_KEPT = 10_000  # as they were parsed


class KeywordMatcher:
    """Looks keywords up in titles with spaCy's lemmas."""

    def __init__(self, model: str = DEFAULT_MODEL) -> None:
        """Raises RedditgenError where spaCy's model is not there or does not load."""
        self._words = word_form_finder(model)
        self._parts: dict[str, list[frozenset[str]]] = {}

    def find_held(self, asked: Sequence[Sequence[str]], titles: Sequence[str]) -> list[list[bool]]:
        """For each title and each keyword asked of it, whether it holds that one."""
        self._parse({keyword for keywords in asked for keyword in keywords})
        held = []
        for keywords, words in zip(asked, self._words(titles), strict=True):
            forms = frozenset(_parts(form for word in words for form in word))
            held.append([all(part & forms for part in self._parts[keyword]) for keyword in keywords])
        return held

    def _parse(self, keywords: set[str]) -> None:
        """Find the forms of each part of the keywords that are new."""
        if len(self._parts) > _KEYWORDS_KEPT:
            self._parts.clear()
        new = sorted(keywords - self._parts.keys())
        for keyword, words in zip(new, self._words([keyword.replace("-", " ") for keyword in new]), strict=True):
            forms = (frozenset(_parts(word)) for word in words)
            self._parts[keyword] = [form for form in forms if form]


def _parts(forms: Iterable[str]) -> Iterable[str]:
    """Forms as they stand in keywords, of which `e-mail` has two parts."""
    return (part for form in forms for part in normalise_keyword(form).split("-") if part)
