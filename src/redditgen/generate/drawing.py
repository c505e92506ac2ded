"""Drawing titles: what is asked is cut into windows, and each is drawn from until its titles are there or given up.

A window is drawn in rounds. The first draws a text for each title that is wanted; each further one as many as those
that are still missing will take, by what became of the texts so far. A window's titles follow from the seed, its number
and what stands in it, so a window can be made without those before it, but for duplicates.
"""

import contextlib
import itertools
import random
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import ceil, sqrt

from redditgen.engines import BLOCKS_AT_ONCE, Write
from redditgen.generate.filters import DUPLICATE, Candidate, Filter, Seen, faults
from redditgen.generate.prompts import Ask
from redditgen.generate.texts import Texts
from redditgen.markup import Record

TITLES = "titles"  # among the counts
BLOCKS_A_WINDOW = BLOCKS_AT_ONCE
BLOCKS_WITHOUT_A_TITLE = 10  # in a row, before generation is given up
_MANY = 100  # texts of a prompt, from which the share of titles among them is known well
_TITLES_WITHOUT_LUCK = 10  # as many titles' tries in a row without one, before a prompt is given up


@dataclass
class Piece:
    """What a window asks of one prompt."""

    ask: Ask
    number: int  # of the ask
    wanted: int
    written: int = 0
    drawn: int = 0
    unlucky: int = 0  # drawn in a row without a title
    waiting: list["Drawn"] = field(default_factory=list)  # for the titles of the pieces before it

    def add(self, title: "Drawn") -> None:
        self.waiting.append(title)
        self.written += 1
        self.drawn += 1
        self.unlucky = 0

    def to_draw(self, tries: int) -> int:
        """How many texts the missing titles will take, as far as there are tries left for them."""
        missing = self.wanted - self.written
        enough = self._enough_for(missing) if self.drawn and missing else missing
        return max(0, min(enough, tries * self.wanted - self.drawn, self.luck_left(tries)))

    def _enough_for(self, missing: int) -> int:
        """As many as will do, by those so far; where these are many, nearly always: the mean and two deviations."""
        share = (self.written + 1) / (self.drawn + 1)
        more = 2 * sqrt(missing * (1 - share)) / share if self.drawn >= _MANY else 0
        return ceil(missing / share + more)

    def luck_left(self, tries: int) -> int:
        return _TITLES_WITHOUT_LUCK * tries - self.unlucky


@dataclass(frozen=True)
class Drawn:
    """A title and the prompt that it was written for."""

    prompt: str
    record: Record


def windows(asks: Iterable[Ask], size: int) -> Iterator[list[Piece]]:
    """All that is asked, cut into pieces, so many titles together."""
    window: list[Piece] = []
    room = size
    for number, ask in enumerate(asks):
        missing = ask.n
        while missing:
            some = min(missing, room)
            window.append(Piece(ask, number, some))
            missing, room = missing - some, room - some
            if not room:
                yield window
                window, room = [], size
    if window:
        yield window


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much is drawn at a time and at most."""

    block: int
    tries: int  # texts a title
    patience: int  # texts in a row that are no whole title, before all is given up


@dataclass
class State:
    """How a drawing stands behind a window: what it needs to go on there."""

    counts: Counter[str] = field(default_factory=Counter)
    fruitless: int = 0  # texts in a row that were no whole title
    hopeless: int = -1  # the number of the ask that was given up last
    is_over: bool = False


class Drawing:
    """Draws a command's titles, window by window."""

    def __init__(
        self,
        texts: Texts,
        filters: Sequence[Filter],
        limits: Limits,
        *,
        seed: int,
        seen: Seen | None,
        state: State,
    ) -> None:
        """`seen` holds the titles that must not come again; with None they may."""
        self._texts, self._filters, self._limits = texts, filters, limits
        self.seed, self._seen = seed, seen
        self.state = state

    def window(self, write: Write, number: int, window: Sequence[Piece]) -> Generator[Drawn]:
        """A window's titles, those of one piece before those of the next, each as soon as may be."""
        pieces = [piece for piece in window if piece.number != self.state.hopeless]
        for round_number in itertools.count():
            todo = [] if self.state.is_over else self._todo(pieces)
            if not todo:
                break
            with contextlib.closing(self._round(write, todo, _seed_of(self.seed, number, round_number))) as blocks:
                for _ in blocks:
                    yield from _ready(pieces, self._limits.tries)
        for piece in pieces:
            yield from piece.waiting
            if not piece.luck_left(self._limits.tries):
                self.state.hopeless = piece.number

    def _todo(self, pieces: Sequence[Piece]) -> list[Piece]:
        """The pieces to draw for, each as often as it is drawn for, a window's worth at most."""
        room, todo = BLOCKS_A_WINDOW * self._limits.block, list[Piece]()
        for piece in pieces:
            todo += [piece] * min(piece.to_draw(self._limits.tries), room - len(todo))
            if len(todo) == room:
                break
        return todo

    def _round(self, write: Write, todo: Sequence[Piece], seed: int) -> Generator[None]:
        """Draw a text for each; what is a title waits with its piece then. Comes back after each block."""
        rng = random.Random(seed)
        prompts = [self._texts.text(piece.ask.prompt, rng) for piece in todo]
        with contextlib.closing(write(prompts, seed)) as texts:
            rows = zip(todo, prompts, texts, strict=False)
            while block := list(itertools.islice(rows, self._limits.block)):
                self._judge(block)
                yield
                if self.state.is_over or all(piece.written == piece.wanted for piece in todo):
                    break

    def _judge(self, block: Sequence[tuple[Piece, str, str]]) -> None:
        """Let texts that are titles wait with their pieces, and count what the others lack."""
        candidates = list(self._candidates(block))
        found = faults([candidate for _, _, candidate in candidates], self._filters)
        for (piece, prompt, candidate), fault in zip(candidates, found, strict=True):
            if piece.written == piece.wanted:
                continue
            is_known = fault is None and self._seen is not None and not self._seen.is_new(candidate.title)
            if fault := DUPLICATE if is_known else fault:
                self._count(piece, fault)
            else:
                piece.add(Drawn(prompt, candidate.record))
                self.state.counts[TITLES] += 1

    def _candidates(self, block: Sequence[tuple[Piece, str, str]]) -> Iterator[tuple[Piece, str, Candidate]]:
        """The texts that are records, until too many in a row were none."""
        for piece, prompt, text in block:
            record = self._texts.record(prompt, text)
            if isinstance(record, Record):
                self.state.fruitless = 0
                yield piece, prompt, Candidate(record, piece.ask.prompt)
                continue
            self._count(piece, record)
            self.state.fruitless += 1
            if self.state.fruitless >= self._limits.patience:
                self.state.is_over = True
                break

    def _count(self, piece: Piece, fault: str) -> None:
        self.state.counts[fault] += 1
        piece.drawn += 1
        piece.unlucky += 1


def _ready(pieces: Sequence[Piece], tries: int) -> Iterator[Drawn]:
    """Titles that no title of a piece before them can come before any more."""
    for piece in pieces:
        yield from piece.waiting
        piece.waiting.clear()
        if piece.to_draw(tries):
            break


def _seed_of(seed: int, window: int, round_number: int) -> int:
    if window == round_number == 0:
        return seed
    return random.Random(f"{seed}, window {window}, round {round_number}").randrange(2**31)
