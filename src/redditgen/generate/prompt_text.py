"""Turns prompts into the texts that an engine continues, and the engine's texts back into records.

With a prefix of the user's own, or with a run trained on plain text, nothing marks where a title begins or ends, so the
whole text is kept.
"""

import random
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import Protocol

from redditgen.generate.prompts import Prompt
from redditgen.gpt2.run_info import NO_RECORDS, RunInfo
from redditgen.settings import GenerateSettings
from redditgen.titles import keywords as keyword_rules
from redditgen.titles.record import END_TOKEN, Record, has_markup, parse

UNFINISHED, MALFORMED, EMPTY, MARKUP = "unfinished", "malformed", "empty", "markup"


class PromptText(Protocol):
    """The text form of prompts and titles in one run."""

    def prompt(self, prompt: Prompt, rng: random.Random) -> str:
        """Return the text that an engine continues; `rng` chooses what the prompt leaves open."""

    def longest_prompt(self, prompt: Prompt) -> str:
        """Return the longest text that the method `prompt` may return."""

    def parse(self, prompt: str, text: str) -> Record | str:
        """Return the record in `text`, which begins with `prompt`, or the name of the fault for which there is none."""


def choose_prompt_text(settings: GenerateSettings, run_info: RunInfo, blocked: Collection[str]) -> PromptText:
    """Return RawText for a prefix or a run trained on plain text, else RecordText."""
    if settings.prefix is not None or run_info.record_tokens == NO_RECORDS:
        return RawText(settings)
    return RecordText(run_info, blocked)


class RecordText:
    """Each prompt is the start of a record, and the model continues it with the title."""

    def __init__(self, run_info: RunInfo, blocked: Collection[str] = ()) -> None:
        """Set up prompts of a run; where one leaves the category open, none of the `blocked` ones is drawn."""
        allowed = {name: count for name, count in run_info.categories.items() if name not in blocked}
        self._run_info = replace(run_info, categories=allowed)

    def prompt(self, prompt: Prompt, rng: random.Random) -> str:
        """Return the start of the wanted record, with those of its sections that the run's records have."""
        return self._text(prompt, lambda: self._run_info.draw_category(rng), lambda: _draw_keywords(prompt, rng))

    def longest_prompt(self, prompt: Prompt) -> str:
        keywords = prompt.keywords or ()
        if prompt.max_keywords is not None:
            keywords = tuple(sorted(keywords, key=len, reverse=True)[: prompt.max_keywords])
        return self._text(prompt, lambda: max(self._run_info.categories, key=len, default=None), lambda: keywords)

    def _text(self, prompt: Prompt, category: Callable[[], str | None], keywords: Callable[[], Iterable[str]]) -> str:
        run_info = self._run_info
        if run_info.sections == () or (prompt.category is None and prompt.keywords is None):
            return run_info.opening_prompt(None if run_info.learned_record_starts else category())
        return run_info.prompt(
            keyword_rules.normalise_category(prompt.category) if prompt.category else category(), keywords()
        )

    def parse(self, prompt: str, text: str) -> Record | str:
        if not text.endswith(END_TOKEN):
            return UNFINISHED
        record = parse(text)
        if record is None or record.title is None or not self._has_sections_of_run(record):
            return MALFORMED
        if not record.title.strip():
            return EMPTY
        return MARKUP if has_markup(record.title) else record

    def _has_sections_of_run(self, record: Record) -> bool:
        """Return whether the record has sections if, and only if, the run's records have them."""
        return self._run_info.sections is None or record.has_sections == bool(self._run_info.sections)


def _draw_keywords(prompt: Prompt, rng: random.Random) -> tuple[str, ...]:
    keywords = prompt.keywords or ()
    if prompt.max_keywords is None or len(keywords) <= prompt.max_keywords:
        return keywords
    return tuple(rng.sample(keywords, prompt.max_keywords))


class RawText:
    """Each prompt is the user's prefix, and the text after it is kept up to the first `settings.truncate`."""

    def __init__(self, settings: GenerateSettings) -> None:
        self._settings = settings

    def prompt(self, prompt: Prompt, rng: random.Random) -> str:
        return self.longest_prompt(prompt)

    def longest_prompt(self, prompt: Prompt) -> str:
        return self._settings.prefix or ""

    def parse(self, prompt: str, text: str) -> Record | str:
        continuation = text[len(prompt) :]
        if self._settings.truncate:
            continuation, _, _ = continuation.partition(self._settings.truncate)
        return Record(title=(prompt if self._settings.include_prefix else "") + continuation)
