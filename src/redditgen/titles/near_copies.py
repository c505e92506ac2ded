"""When a title is near enough to another to be its copy. Pure, and of titles that are `normalised` by `novelty`.

Their runs of three characters are then as similar, by Jaccard, as a threshold, and they have the same key words but
for one in 12 words. A typo costs 3 runs and another small word 4 or 5: in 27 characters, or some 40, that is still 0.8.
But titles of one pattern ("the worst advice you've been given", "the best ...") share most of their characters too;
their key words part them. So do pairs of real titles read, of which `scripts/bench/novelty.py` prints some.
"""

from difflib import SequenceMatcher
from itertools import pairwise

_WORDS_A_KEY_WORD = 12
_SMALL = """
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
_SMALL_WORDS = frozenset(_SMALL.split())  # they join a title, or stand before any on Reddit, and tell none from another


def trigrams(text: str) -> set[str]:
    """Every three characters in a row, the blanks around the title included."""
    padded = f" {text} "
    return {padded[start : start + 3] for start in range(len(padded) - 2)}


def jaccard_similarity(ones: set[str], others: set[str]) -> float:
    """The share of common runs in all; 0 if there are none."""
    common = len(ones & others)
    return common / ((len(ones) + len(others) - common) or 1)


def differ_in_key_words(one: str, other: str) -> bool:
    """Whether two titles differ in more key words than one in 12 of the shorter one's words."""
    ones, others = one.split(), other.split()
    allowed = min(len(ones), len(others)) // _WORDS_A_KEY_WORD
    return max(_number_missing(ones, others), _number_missing(others, ones)) > allowed


def _number_missing(words: list[str], others: list[str]) -> int:
    """How many key words are not among the other title's, not even misspelt, joined to the next one or divided."""
    missing = set(words) - set(others) - _SMALL_WORDS
    if missing:
        missing -= {first + second for first, second in pairwise(others)}
        missing -= {word for pair in pairwise(words) if "".join(pair) in others for word in pair}
    return sum(not any(_is_misspelt(word, other) for other in others) for word in missing)


def _is_misspelt(one: str, other: str) -> bool:
    """Typos are inside words; what begins otherwise is another word ("men" and "women", "legal" and "illegal")."""
    return one[0] == other[0] and SequenceMatcher(None, min(one, other), max(one, other)).ratio() >= 0.8
