"""generate: prompts to an engine, and of what the model writes only whole titles that are worth having."""

import logging
from collections.abc import Callable, Iterator, Sequence

from redditgen.engines import Write
from redditgen.errors import RedditgenError
from redditgen.generate.drawing import Drawing, State
from redditgen.generate.files import write
from redditgen.generate.filters import Seen
from redditgen.generate.prompts import Asks, Prompt, asked, each, keywords, one
from redditgen.generate.report import report
from redditgen.generate.stage import Stage, seed_of
from redditgen.generate.titles import COLUMNS, Title, shown
from redditgen.settings import GenerateSettings

__all__ = ["COLUMNS", "Prompt", "Title", "conversation", "generate", "shown", "titles", "write"]

_log = logging.getLogger(__name__)


def generate(settings: GenerateSettings) -> Iterator[Title]:
    """Titles as they are written: as many as are asked for, or fewer, with a warning, where too few are worth having.

    Raises InputError if none is.
    """
    return _titles(Stage(settings), asked(settings), seed_of(settings))


def titles(prompts: Sequence[Prompt], settings: GenerateSettings) -> Iterator[Title]:
    """The same for prompts of a program's own, a title each."""
    return _titles(Stage(settings), each(prompts), seed_of(settings))


def conversation(settings: GenerateSettings, ask: Callable[[str], str]) -> Iterator[Title]:
    """Titles for one category and keywords after another, as `ask` answers its questions, until it raises EOFError."""
    stage, seed = Stage(settings), seed_of(settings)
    with stage.writing() as write:
        for number in range(seed, seed + 2**31):
            try:
                prompt = Prompt(ask("category: ").strip() or None, keywords(ask("keywords: ").strip() or None))
            except EOFError:
                return
            try:
                asks = one(prompt, settings.number)
                total = stage.check(asks)
                yield from _made(stage, _drawing(stage, total, number), write, asks, total)
            except RedditgenError as error:
                _log.warning("%s", error)


def _titles(stage: Stage, asks: Asks, seed: int) -> Iterator[Title]:
    total = stage.check(asks)
    return _opened(stage, _drawing(stage, total, seed), asks, total)


def _drawing(stage: Stage, total: int, seed: int) -> Drawing:
    return stage.drawing(total, seed, Seen() if stage.is_unique else None, State())


def _opened(stage: Stage, drawing: Drawing, asks: Asks, total: int) -> Iterator[Title]:
    with stage.writing() as write:
        yield from _made(stage, drawing, write, asks, total)


def _made(stage: Stage, drawing: Drawing, write: Write, asks: Asks, total: int) -> Iterator[Title]:
    for number, window in enumerate(stage.windows(asks)):
        if drawing.state.is_over:
            break
        yield from stage.made(drawing, write, number, window)
    report(stage.settings, total, drawing.state.counts)
