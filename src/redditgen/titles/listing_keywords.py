"""Extracts keywords as the report's listed script `keyword_encode.py` does, for `--compat listing`.

The script departs from the rules in the report's text, which module `keywords` follows: only spaces become dashes, no
other punctuation, and only in phrases; a proper noun is a keyword only as a phrase or as part of one; phrases of stop
words are kept, and so are lemmas that are stop words. docs/encoding.md has the whole table, with how many titles each
difference changes. The functions are pure: they load no model and read no file.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spacy.tokens import Doc

_BY_LEMMA = frozenset({"VERB", "ADJ", "ADV"})
# The script drops a keyword that is one of these pronouns, in lower case or capitalized; it keeps "ME" and "us".
_PRONOUNS = frozenset(
    form
    for word in ("i", "me", "we", "you", "he", "she", "it", "him", "her", "them", "they")
    for form in (word, word.capitalize())
)


def find_listing_keywords(doc: "Doc", length_max: int) -> tuple[str, ...]:
    """Return the distinct keywords that the script finds, ordered by where they begin.

    Noun phrases of `length_max` characters or more are left out.
    """
    candidates = sorted([*_find_words(doc), *_find_phrases(doc, length_max)])
    return tuple(dict.fromkeys(keyword for _, _, keyword in candidates if keyword not in _PRONOUNS))


def split_ready_keywords(text: str, separator: str) -> tuple[str, ...]:
    """Split the cell of a keywords column; return its distinct keywords as written, without blanks around them."""
    return tuple(dict.fromkeys(keyword.strip() for keyword in text.split(separator)))


def _find_words(doc: "Doc") -> Iterator[tuple[int, int, str]]:
    """Yield single words as (first token, token after the last, keyword)."""
    for token in doc:
        if token.is_stop:
            continue
        if token.pos_ == "NOUN":
            yield token.i, token.i + 1, token.text
        elif token.pos_ in _BY_LEMMA:
            yield token.i, token.i + 1, token.lemma_


def _find_phrases(doc: "Doc", length_max: int) -> Iterator[tuple[int, int, str]]:
    """Yield named entities and short noun phrases, in the same form as `_find_words`."""
    short = (chunk for chunk in doc.noun_chunks if len(chunk.text) < length_max)
    for span in (*doc.ents, *short):
        yield span.start, span.end, span.text.replace(" ", "-")
