"""Decides whether a title is a near copy of another. Titles must be normalised by `novelty.normalise_title`.

Two titles are near copies if the Jaccard similarity of their sets of character trigrams reaches a threshold, and if
their key words (all but the small words below) are the same, with one difference allowed per 12 words. A typo changes
3 trigrams and another small word 4 or 5; with 27 characters, or some 40, the similarity is still 0.8. Titles of one
pattern ("the worst advice you've been given", "the best ...") also share most of their characters; their key words tell
them apart. `scripts/bench/novelty.py` prints such pairs of real titles.
"""

from difflib import SequenceMatcher
from itertools import pairwise

_WORDS_PER_DIFFERENCE = 12
_SMALL_WORD_LIST = """
a about actually all also always am an and any anyone anything are as at be because been being but by can cant could
did didnt do does doesnt doing done dont during each either else even ever every everyone everything for from get gets
getting go going gonna got had has have having he her here hers him his how i id if ill im in instead into is isnt it
its ive just let lets like me might mine more most much must my no not now of off on once one only or other our ours
out over own really s same she should shouldnt so some someone something still such t than that thats the their theirs
them then there theres these they theyre theyve thing things this those through to too under until up us very was
wasnt way we well were weve what whats when where which while who whom whos whose why will with within without would
yet you youd youll your youre yours youve
nsfw oc reddit redditor redditors serious sfw update
"""
# Function words, and words that precede any title on Reddit: they do not tell titles apart.
_SMALL_WORDS = frozenset(_SMALL_WORD_LIST.split())


def trigrams(text: str) -> set[str]:
    """Return every three consecutive characters of a title with a blank before and after it."""
    padded = f" {text} "
    return {padded[start : start + 3] for start in range(len(padded) - 2)}


def jaccard_similarity(ones: set[str], others: set[str]) -> float:
    """Return the size of the intersection of two sets divided by that of their union; 0 if both are empty."""
    common = len(ones & others)
    return common / ((len(ones) + len(others) - common) or 1)


def differ_in_key_words(one: str, other: str) -> bool:
    """Return whether two titles differ in more than one key word per 12 words of the shorter title."""
    words, other_words = one.split(), other.split()
    allowed = min(len(words), len(other_words)) // _WORDS_PER_DIFFERENCE
    return max(_count_missing(words, other_words), _count_missing(other_words, words)) > allowed


def _count_missing(words: list[str], others: list[str]) -> int:
    """Return how many key words of `words` are not in `others`.

    A word that `others` has misspelt, joined to the next word or divided into two does not count as missing.
    """
    missing = set(words) - set(others) - _SMALL_WORDS
    if missing:
        missing -= {first + second for first, second in pairwise(others)}
        missing -= {word for pair in pairwise(words) if "".join(pair) in others for word in pair}
    return sum(not any(_is_misspelt(word, other) for other in others) for word in missing)


def _is_misspelt(one: str, other: str) -> bool:
    """Return whether two words differ by a typo.

    Words that begin with different letters are different words ("men" and "women", "legal" and "illegal").
    """
    return one[0] == other[0] and SequenceMatcher(None, min(one, other), max(one, other)).ratio() >= 0.8
