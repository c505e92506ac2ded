"""Keywords of a parsed title, by the rules of the report's section 4. Pure: no model is loaded and no file read here.

Nouns and proper nouns count as they are written; verbs, adjectives and adverbs by their lemma. Named entities,
compounds and short noun phrases count as keywords of their own, determiners included (`the-shaders`). Pronouns and stop
words don't.
"""

import re
import unicodedata
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from spacy.tokens import Doc, Span, Token

_AS_WRITTEN = frozenset({"NOUN", "PROPN"})
_BY_LEMMA = frozenset({"VERB", "ADJ", "ADV"})
_SMART_QUOTES = str.maketrans("‘’“”", "''\"\"")


class _Found(NamedTuple):
    start: int  # tokens; the end is behind the last one
    end: int
    text: str


def normalise_category(text: str) -> str:
    """A subreddit's name as it stands in a record: lower case, dashes for whatever is not a letter, digit or `_`."""
    return re.sub(r"\W+", "-", text.lower().strip())


def straighten_quotes(text: str) -> str:
    """Text as spaCy tokenises it best."""
    return text.translate(_SMART_QUOTES)


def normalise_keyword(keyword: str) -> str:
    """Dashes for spaces and punctuation, never at an end or two in a row; '' if there is no letter or digit."""
    if keyword.isalnum():
        return keyword
    spaced = "".join(char if _in_word(char) else " " for char in keyword)
    return "-".join(word for word in spaced.split() if any(map(str.isalnum, word)))


def _in_word(char: str) -> bool:
    # Combining marks are vowels in Hindi and Thai, accents in decomposed Latin.
    return char.isalnum() or unicodedata.category(char).startswith("M")


def find_keywords(doc: "Doc", length_max: int) -> tuple[str, ...]:
    """The distinct keywords in the order in which they begin; phrases must be shorter than `length_max` characters."""
    found = sorted([*_words(doc), *_phrases(doc, length_max)], key=lambda one: (one.start, one.end))
    normalised = (normalise_keyword(one.text) for one in found)
    return tuple(dict.fromkeys(keyword for keyword in normalised if keyword))


def _words(doc: "Doc") -> Iterator[_Found]:
    for token in doc:
        if token.is_stop:
            continue
        kind = token.pos_
        if kind in _AS_WRITTEN:
            yield _Found(token.i, token.i + 1, token.text)
        elif kind in _BY_LEMMA and not doc.vocab[token.lemma].is_stop:
            yield _Found(token.i, token.i + 1, token.lemma_)


def _phrases(doc: "Doc", length_max: int) -> Iterator[_Found]:
    short = (span for span in (*doc.noun_chunks, *_compounds(doc)) if len(span.text) < length_max)
    for span in (*doc.ents, *short):
        if not all(_says_nothing(token) for token in span):
            yield _Found(span.start, span.end, span.text)


def _says_nothing(token: "Token") -> bool:
    # To spaCy, which compares lower case, the country "US" is the stop word "us".
    is_a_place = token.ent_type_ == "GPE" and token.is_upper
    return (token.is_stop and not is_a_place) or token.is_punct or token.pos_ == "PRON"


def _compounds(doc: "Doc") -> Iterator["Span"]:
    """Each word with the run of compound parts right before it: to the parser a noun, however the tagger took it."""
    for head in doc:
        start = head.i
        while start > 0 and doc[start - 1].dep_ == "compound" and start <= doc[start - 1].head.i <= head.i:
            start -= 1
        if start < head.i and head.dep_ != "compound":
            yield doc[start : head.i + 1]
