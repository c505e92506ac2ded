"""Random draws from the keywords of a title, so that a model sees the title with other keywords in each copy."""

from collections.abc import Sequence
from random import Random

from redditgen.titles.record import Record


def draw_keywords(random: Random, keywords: Sequence[str], minimum: int, maximum: int) -> str:
    """Return `minimum` to `maximum` random keywords, or all if there are fewer, in random order, joined by blanks."""
    count = min(random.randint(minimum, maximum), len(keywords))
    return " ".join(random.sample(keywords, count))


class KeywordPool(Record):
    """A record with all the keywords of its title, separated by blanks.

    The model is not trained on it, but on the records that `draw` returns.
    """

    def draw(self, random: Random, minimum: int, maximum: int) -> Record:
        """Return the record with from `minimum` to `maximum` of its keywords, as `draw_keywords` draws them."""
        return self._with_keywords(draw_keywords(random, self._all_keywords(), minimum, maximum))

    def draw_longest(self, maximum: int) -> Record:
        """Return the record with its `maximum` longest keywords, the longest draw possible."""
        return self._with_keywords(" ".join(sorted(self._all_keywords(), key=len)[-maximum:] if maximum else ()))

    def _all_keywords(self) -> list[str]:
        return (self.keywords or "").split()

    def _with_keywords(self, keywords: str) -> Record:
        return Record(category=self.category, keywords=keywords, title=self.title, body=self.body)
