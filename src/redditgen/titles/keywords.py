"""Extracts the keywords of a title that spaCy has parsed, by the rules of the report's section 4.

Nouns and proper nouns are keywords as they are written; verbs, adjectives and adverbs by their lemma. Named entities,
compounds and short noun phrases are keywords of their own, with their determiners (`the-shaders`). Pronouns and stop
words are not. The functions are pure: they load no model and read no file.
"""

import re
import unicodedata
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from spacy.tokens import Doc, Span, Token

# Universal part-of-speech tags.
_AS_WRITTEN = frozenset({"NOUN", "PROPN"})
_BY_LEMMA = frozenset({"VERB", "ADJ", "ADV"})
_SMART_QUOTES = str.maketrans("‘’“”", "''\"\"")


class _Candidate(NamedTuple):
    """A word or phrase that may be a keyword; `start` and `end` are token indices, `end` exclusive."""

    start: int
    end: int
    text: str


def normalise_category(text: str) -> str:
    """Return a subreddit's name as records hold it.

    That is lower case, with one dash for each sequence of characters other than letters, digits and `_`.
    """
    return re.sub(r"\W+", "-", text.lower().strip())


def straighten_quotes(text: str) -> str:
    """Replace typographic quotation marks by ASCII ones, which spaCy tokenizes better."""
    return text.translate(_SMART_QUOTES)


def normalise_keyword(keyword: str) -> str:
    """Replace spaces and punctuation by dashes, one for several and none at an end.

    Returns '' for a keyword without a letter or digit.
    """
    if keyword.isalnum():
        return keyword
    spaced = "".join(char if _in_word(char) else " " for char in keyword)
    return "-".join(word for word in spaced.split() if any(map(str.isalnum, word)))


def _in_word(char: str) -> bool:
    # Combining marks belong to words: they are vowels in Hindi and Thai, and accents in decomposed Latin.
    return char.isalnum() or unicodedata.category(char).startswith("M")


def find_keywords(doc: "Doc", length_max: int) -> tuple[str, ...]:
    """Return the distinct keywords of a parsed title, ordered by where they begin.

    Noun phrases and compounds of `length_max` characters or more are left out.
    """
    candidates = sorted(
        [*_find_words(doc), *_find_phrases(doc, length_max)], key=lambda candidate: (candidate.start, candidate.end)
    )
    normalised = (normalise_keyword(candidate.text) for candidate in candidates)
    return tuple(dict.fromkeys(keyword for keyword in normalised if keyword))


def _find_words(doc: "Doc") -> Iterator[_Candidate]:
    for token in doc:
        if token.is_stop:
            continue
        part_of_speech = token.pos_
        if part_of_speech in _AS_WRITTEN:
            yield _Candidate(token.i, token.i + 1, token.text)
        elif part_of_speech in _BY_LEMMA and not doc.vocab[token.lemma].is_stop:
            yield _Candidate(token.i, token.i + 1, token.lemma_)


def _find_phrases(doc: "Doc", length_max: int) -> Iterator[_Candidate]:
    short = (span for span in (*doc.noun_chunks, *_find_compounds(doc)) if len(span.text) < length_max)
    for span in (*doc.ents, *short):
        if not all(_is_filler(token) for token in span):
            yield _Candidate(span.start, span.end, span.text)


def _is_filler(token: "Token") -> bool:
    # spaCy compares stop words in lower case, so it takes the country "US" for the stop word "us".
    is_place = token.ent_type_ == "GPE" and token.is_upper
    return (token.is_stop and not is_place) or token.is_punct or token.pos_ == "PRON"


def _find_compounds(doc: "Doc") -> Iterator["Span"]:
    """Yield each word together with the compound parts directly before it.

    The parser's dependency labels decide, whatever part of speech the tagger gave the word.
    """
    for head in doc:
        start = head.i
        while start > 0 and doc[start - 1].dep_ == "compound" and start <= doc[start - 1].head.i <= head.i:
            start -= 1
        if start < head.i and head.dep_ != "compound":
            yield doc[start : head.i + 1]
