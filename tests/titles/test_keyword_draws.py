from collections import Counter
from random import Random

import pytest

from redditgen.titles.keyword_draws import KeywordPool, draw_keywords
from redditgen.titles.record import Record

KEYWORDS = ("cat", "old", "the-sofa", "sleep")


@pytest.mark.parametrize(("least", "most", "counts"), [(0, 3, {0, 1, 2, 3}), (2, 2, {2}), (3, 9, {3, 4}), (9, 9, {4})])
def test_a_draw_holds_from_the_least_to_the_most_keywords_that_there_are(
    least: int, most: int, counts: set[int]
) -> None:
    draws = [draw_keywords(Random(seed), KEYWORDS, least, most).split() for seed in range(300)]
    assert {len(drawn) for drawn in draws} == counts
    assert all(len(set(drawn)) == len(drawn) and set(drawn) <= set(KEYWORDS) for drawn in draws)


def test_every_keyword_is_drawn_as_often_as_any_other_and_at_any_place() -> None:
    draws = Counter(draw_keywords(Random(seed), KEYWORDS, 2, 2) for seed in range(6000))
    assert len(draws) == 12
    assert all(400 < count < 600 for count in draws.values())


def test_of_no_keywords_none_is_drawn() -> None:
    assert draw_keywords(Random(0), (), 1, 3) == ""


def test_a_record_is_drawn_with_all_else_as_it_is() -> None:
    undrawn = KeywordPool(category="cats", keywords=" ".join(KEYWORDS), title="My cat", body="")
    drawn = undrawn.draw(Random(3), 2, 3)
    assert drawn == Record(category="cats", keywords=draw_keywords(Random(3), KEYWORDS, 2, 3), title="My cat", body="")
    assert type(drawn) is Record
    assert KeywordPool(keywords="", title="My cat").draw(Random(0), 1, 3) == Record(keywords="", title="My cat")


def test_the_longest_draw_is_no_shorter_than_any_other() -> None:
    undrawn = KeywordPool(keywords=" ".join(KEYWORDS), title="My cat")
    for most, wanted in ((0, 0), (1, 8), (2, 14), (4, 22), (9, 22)):
        longest = len(undrawn.draw_longest(most).keywords or "")
        assert longest == wanted == max(len(undrawn.draw(Random(n), 0, most).keywords or "") for n in range(200))
