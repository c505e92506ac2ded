"""Draws titles: requests are cut into portions, and each portion is drawn in rounds until it has its titles.

The first round of a portion samples one text for each title that is wanted. Each further round samples as many texts as
the missing titles will probably take, estimated from the share of titles among the texts so far, until the tries for
them are used up. A prompt is given up when too many of its texts in a row become no title, and the command when too
many texts in a row are no whole title.

The titles of a portion depend on the seed, the portion's number and its requests. They depend on the portions before it
only through DrawState and through the titles that are refused as duplicates, so drawing can be continued after any
portion.
"""

import contextlib
import itertools
import random
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import ceil, sqrt

from redditgen.engines.base import BLOCKS_AT_ONCE, WriteTexts
from redditgen.generate.filters import DUPLICATE, Candidate, Filter, SeenTitles, find_faults
from redditgen.generate.prompt_text import PromptText
from redditgen.generate.prompts import PromptRequest
from redditgen.titles.record import Record

TITLE_COUNT = "titles"  # the key of the titles among the counts
BLOCKS_PER_PORTION = BLOCKS_AT_ONCE
MAX_BLOCKS_WITHOUT_TITLE = 10  # in a row; then the command gives up
_MANY_TEXTS = 100  # after this many texts of a prompt, the share of titles among them is well known
_MAX_TITLES_MISSED = 10  # a prompt is given up when the tries of this many titles in a row yielded none


@dataclass
class PromptQuota:
    """How many titles a portion wants for one prompt, and what was drawn for them so far."""

    request: PromptRequest
    request_number: int
    wanted: int  # titles
    written: int = 0  # titles
    drawn: int = 0  # texts
    misses: int = 0  # texts in a row that became no title
    waiting: list["DrawnTitle"] = field(default_factory=list)  # held until the quotas before this one are finished

    def add(self, title: "DrawnTitle") -> None:
        self.waiting.append(title)
        self.written += 1
        self.drawn += 1
        self.misses = 0

    def texts_to_draw(self, max_tries: int) -> int:
        """Return how many texts the missing titles will probably take, but no more than there are tries left."""
        missing = self.wanted - self.written
        estimate = self._estimate_texts(missing) if self.drawn and missing else missing
        return max(0, min(estimate, max_tries * self.wanted - self.drawn, self.misses_left(max_tries)))

    def _estimate_texts(self, missing: int) -> int:
        """Estimate from the share of titles so far; after many texts, add a margin of two standard deviations."""
        share = (self.written + 1) / (self.drawn + 1)
        margin = 2 * sqrt(missing * (1 - share)) / share if self.drawn >= _MANY_TEXTS else 0
        return ceil(missing / share + margin)

    def misses_left(self, max_tries: int) -> int:
        """Return how many more texts in a row may become no title before the prompt is given up."""
        return _MAX_TITLES_MISSED * max_tries - self.misses


@dataclass(frozen=True)
class DrawnTitle:
    """The record of a title, and the text of the prompt that it was sampled for."""

    prompt: str
    record: Record


def cut_into_portions(requests: Iterable[PromptRequest], size: int) -> Iterator[list[PromptQuota]]:
    """Yield all requests in portions of `size` titles, the last one smaller; a request may span several portions."""
    portion: list[PromptQuota] = []
    room = size
    for number, request in enumerate(requests):
        missing = request.n
        while missing:
            wanted = min(missing, room)
            portion.append(PromptQuota(request, number, wanted))
            missing, room = missing - wanted, room - wanted
            if not room:
                yield portion
                portion, room = [], size
    if portion:
        yield portion


@dataclass(frozen=True, kw_only=True)
class DrawLimits:
    """How many texts are sampled at a time, and after how many drawing is given up."""

    block_rows: int  # texts sampled and judged together
    max_tries: int  # texts for each title
    max_misses: int  # texts in a row that are no whole title; then the command gives up


@dataclass
class DrawState:
    """The state after a portion: all that drawing the next portion depends on."""

    counts: Counter[str] = field(default_factory=Counter)  # of titles (TITLE_COUNT) and of each fault
    misses: int = 0  # texts in a row that were no whole title
    exhausted: int = -1  # the number of the request that was given up last; -1 for none
    is_over: bool = False  # whether the command has given up


class TitleDrawer:
    """Draws a command's titles, portion by portion."""

    def __init__(
        self,
        prompt_text: PromptText,
        filters: Sequence[Filter],
        limits: DrawLimits,
        *,
        seed: int,
        seen: SeenTitles | None,
        state: DrawState,
    ) -> None:
        """Titles in `seen` are refused as duplicates, and new ones are added to it; None allows duplicates."""
        self._prompt_text, self._filters, self._limits = prompt_text, filters, limits
        self.seed, self._seen = seed, seen
        self.state = state

    def draw_portion(self, write: WriteTexts, number: int, portion: Sequence[PromptQuota]) -> Generator[DrawnTitle]:
        """Yield a portion's titles in the order of its quotas, each as soon as the quotas before it are finished."""
        quotas = [quota for quota in portion if quota.request_number != self.state.exhausted]
        for round_number in itertools.count():
            todo = [] if self.state.is_over else self._plan_round(quotas)
            if not todo:
                break
            with contextlib.closing(
                self._draw_round(write, todo, _round_seed(self.seed, number, round_number))
            ) as blocks:
                for _ in blocks:
                    yield from _take_ready(quotas, self._limits.max_tries)
        for quota in quotas:
            yield from quota.waiting
            if not quota.misses_left(self._limits.max_tries):
                self.state.exhausted = quota.request_number

    def _plan_round(self, quotas: Sequence[PromptQuota]) -> list[PromptQuota]:
        """Return the quotas to sample for, one entry a text: at most as many as the blocks of a portion hold."""
        room, todo = BLOCKS_PER_PORTION * self._limits.block_rows, list[PromptQuota]()
        for quota in quotas:
            todo += [quota] * min(quota.texts_to_draw(self._limits.max_tries), room - len(todo))
            if len(todo) == room:
                break
        return todo

    def _draw_round(self, write: WriteTexts, todo: Sequence[PromptQuota], seed: int) -> Generator[None]:
        """Sample a text for each entry of `todo`, and add the titles to their quotas. Yields None after each block."""
        rng = random.Random(seed)
        prompts = [self._prompt_text.prompt(quota.request.prompt, rng) for quota in todo]
        with contextlib.closing(write(prompts, seed)) as texts:
            rows = zip(todo, prompts, texts, strict=False)
            while block := list(itertools.islice(rows, self._limits.block_rows)):
                self._judge(block)
                yield
                if self.state.is_over or all(quota.written == quota.wanted for quota in todo):
                    break

    def _judge(self, block: Sequence[tuple[PromptQuota, str, str]]) -> None:
        """Add texts that are titles to their quotas, and count the faults of the others."""
        candidates = list(self._candidates(block))
        faults = find_faults([candidate for _, _, candidate in candidates], self._filters)
        for (quota, prompt, candidate), fault in zip(candidates, faults, strict=True):
            if quota.written == quota.wanted:
                continue
            is_duplicate = fault is None and self._seen is not None and not self._seen.is_new(candidate.title)
            if fault := DUPLICATE if is_duplicate else fault:
                self._count_fault(quota, fault)
            else:
                quota.add(DrawnTitle(prompt, candidate.record))
                self.state.counts[TITLE_COUNT] += 1

    def _candidates(
        self, block: Sequence[tuple[PromptQuota, str, str]]
    ) -> Iterator[tuple[PromptQuota, str, Candidate]]:
        """Yield the texts that are records; set `is_over`, and stop, when too many texts in a row are none."""
        for quota, prompt, text in block:
            record = self._prompt_text.parse(prompt, text)
            if isinstance(record, Record):
                self.state.misses = 0
                yield quota, prompt, Candidate(record, quota.request.prompt)
                continue
            self._count_fault(quota, record)
            self.state.misses += 1
            if self.state.misses >= self._limits.max_misses:
                self.state.is_over = True
                break

    def _count_fault(self, quota: PromptQuota, fault: str) -> None:
        self.state.counts[fault] += 1
        quota.drawn += 1
        quota.misses += 1


def _take_ready(quotas: Sequence[PromptQuota], max_tries: int) -> Iterator[DrawnTitle]:
    """Remove and yield the waiting titles of each quota, up to and including the first quota that is not finished."""
    for quota in quotas:
        yield from quota.waiting
        quota.waiting.clear()
        if quota.texts_to_draw(max_tries):
            break


def _round_seed(seed: int, portion: int, round_number: int) -> int:
    if portion == round_number == 0:
        return seed
    # "window" is the former word for a portion; another one would change the titles of a seed.
    return random.Random(f"{seed}, window {portion}, round {round_number}").randrange(2**31)
