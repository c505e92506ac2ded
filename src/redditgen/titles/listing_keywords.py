"""Keywords as the report's listed `keyword_encode.py` finds them, for `--compat listing`. Pure, as `keywords` is.

The code departs from the rules of its own text: of punctuation only spaces become dashes, and only in phrases; a proper
noun counts only as a phrase or as part of one; phrases of stop words stay, and so do lemmas that are stop words.
docs/encoding.md has the whole table, with how many titles each difference changes.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spacy.tokens import Doc

_BY_LEMMA = frozenset({"VERB", "ADJ", "ADV"})
# No keyword if one stands alone and is written in one of these two ways: neither "ME" nor "us" is among them.
_PRONOUNS = frozenset(
    form
    for word in ("i", "me", "we", "you", "he", "she", "it", "him", "her", "them", "they")
    for form in (word, word.capitalize())
)


def find_listing_keywords(doc: "Doc", length_max: int) -> tuple[str, ...]:
    """The listing's set, in the order in which its keywords begin; a noun phrase must be shorter than `length_max`."""
    found = sorted([*_words(doc), *_phrases(doc, length_max)])
    return tuple(dict.fromkeys(keyword for _, _, keyword in found if keyword not in _PRONOUNS))


def split_ready_keywords(text: str, separator: str) -> tuple[str, ...]:
    """The distinct keywords of a column of ready ones, each as it is written there but for blanks around it."""
    return tuple(dict.fromkeys(keyword.strip() for keyword in text.split(separator)))


def _words(doc: "Doc") -> Iterator[tuple[int, int, str]]:
    for token in doc:
        if token.is_stop:
            continue
        if token.pos_ == "NOUN":
            yield token.i, token.i + 1, token.text
        elif token.pos_ in _BY_LEMMA:
            yield token.i, token.i + 1, token.lemma_


def _phrases(doc: "Doc", length_max: int) -> Iterator[tuple[int, int, str]]:
    short = (chunk for chunk in doc.noun_chunks if len(chunk.text) < length_max)
    for span in (*doc.ents, *short):
        yield span.start, span.end, span.text.replace(" ", "-")
