"""Keywords drawn for one copy of a title."""

from collections.abc import Sequence
from random import Random

from redditgen.titles.record import Record


def draw_keywords(random: Random, keywords: Sequence[str], least: int, most: int) -> str:
    """From `least` to `most` of the keywords, as many as there are, in random order with blanks between."""
    count = min(random.randint(least, most), len(keywords))
    return " ".join(random.sample(keywords, count))


class KeywordPool(Record):
    """A record with all the keywords of its title, a word each; it is learned with those drawn from them."""

    def draw(self, random: Random, least: int, most: int) -> Record:
        return self._with(draw_keywords(random, self._words(), least, most))

    def draw_longest(self, most: int) -> Record:
        """With the longest keywords that a draw of `most` may hold."""
        return self._with(" ".join(sorted(self._words(), key=len)[-most:] if most else ()))

    def _words(self) -> list[str]:
        return (self.keywords or "").split()

    def _with(self, keywords: str) -> Record:
        return Record(category=self.category, keywords=keywords, title=self.title, body=self.body)
