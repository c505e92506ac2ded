"""What an engine is given and what it gives: the text of a prompt, and the record of a text.

With a prefix of the user's own, or a run of plain text, there is no telling what a title is: a text is then kept as it
comes.
"""

import random
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import Protocol

from redditgen import keywords as keyword_rules
from redditgen import markup
from redditgen.generate.prompts import Prompt
from redditgen.gpt2.mark import NO_RECORDS, Mark
from redditgen.markup import Record
from redditgen.settings import GenerateSettings

UNFINISHED, MALFORMED, EMPTY, MARKUP = "unfinished", "malformed", "empty", "markup"


class Texts(Protocol):
    def text(self, prompt: Prompt, rng: random.Random) -> str:
        """What an engine shall go on from."""

    def longest(self, prompt: Prompt) -> str:
        """The longest that `text` may give for a prompt."""

    def record(self, prompt: str, text: str) -> Record | str:
        """What is in an engine's text, or what keeps it from being a title."""


def texts(settings: GenerateSettings, mark: Mark, blocked: Collection[str]) -> Texts:
    if settings.prefix is not None or mark.record_tokens == NO_RECORDS:
        return Raw(settings)
    return Records(mark, blocked)


class Records:
    """Prompts that are the start of a record, whose end is a title."""

    def __init__(self, mark: Mark, blocked: Collection[str] = ()) -> None:
        """Of the `blocked` categories none is drawn."""
        kept = {name: count for name, count in mark.categories.items() if name not in blocked}
        self._mark = replace(mark, categories=kept)

    def text(self, prompt: Prompt, rng: random.Random) -> str:
        """The start of the record that is asked for, as far as the run's records have such sections."""
        return self._text(prompt, lambda: self._mark.some_category(rng), lambda: _drawn(prompt, rng))

    def longest(self, prompt: Prompt) -> str:
        keywords = prompt.keywords or ()
        if prompt.most is not None:
            keywords = tuple(sorted(keywords, key=len, reverse=True)[: prompt.most])
        return self._text(prompt, lambda: max(self._mark.categories, key=len, default=None), lambda: keywords)

    def _text(self, prompt: Prompt, category: Callable[[], str | None], keywords: Callable[[], Iterable[str]]) -> str:
        mark = self._mark
        if mark.sections == () or (prompt.category is None and prompt.keywords is None):
            return mark.opening(None if mark.begins_records else category())
        return mark.prompt(keyword_rules.category(prompt.category) if prompt.category else category(), keywords())

    def record(self, prompt: str, text: str) -> Record | str:
        if not text.endswith(markup.END):
            return UNFINISHED
        record = markup.parse(text)
        if record is None or record.title is None or not self._is_of_the_run(record):
            return MALFORMED
        if not record.title.strip():
            return EMPTY
        return MARKUP if markup.has_markup(record.title) else record

    def _is_of_the_run(self, record: Record) -> bool:
        """Whether the record has marks just if those of the run have."""
        return self._mark.sections is None or record.marked == bool(self._mark.sections)


def _drawn(prompt: Prompt, rng: random.Random) -> tuple[str, ...]:
    keywords = prompt.keywords or ()
    if prompt.most is None or len(keywords) <= prompt.most:
        return keywords
    return tuple(rng.sample(keywords, prompt.most))


class Raw:
    """The user's prefix, and what comes behind it up to `settings.truncate`."""

    def __init__(self, settings: GenerateSettings) -> None:
        self._settings = settings

    def text(self, prompt: Prompt, rng: random.Random) -> str:
        return self.longest(prompt)

    def longest(self, prompt: Prompt) -> str:
        return self._settings.prefix or ""

    def record(self, prompt: str, text: str) -> Record | str:
        continued = text[len(prompt) :]
        if self._settings.truncate:
            continued, _, _ = continued.partition(self._settings.truncate)
        return Record(title=(prompt if self._settings.include_prefix else "") + continued)
