"""`redditgen generate`: titles for the prompts of the settings, of a program, or of a user at a terminal."""

import logging
from collections.abc import Callable, Iterator, Sequence

from redditgen.engines.base import WriteTexts
from redditgen.errors import RedditgenError
from redditgen.generate.filters import SeenTitles
from redditgen.generate.prompts import (
    Prompt,
    PromptRequests,
    one_title_each,
    parse_keywords,
    requests_from_settings,
    single_request,
)
from redditgen.generate.report import report_counts
from redditgen.generate.rounds import DrawState, TitleDrawer
from redditgen.generate.session import Session, choose_seed
from redditgen.generate.title import Title
from redditgen.settings import GenerateSettings

_log = logging.getLogger(__name__)


def generate(settings: GenerateSettings) -> Iterator[Title]:
    """Yield titles as they are written: as many as are asked for, or fewer, with a warning, where the filters leave
    too few.

    Raises InputError if they leave none.
    """
    return _generate(Session(settings), requests_from_settings(settings), choose_seed(settings))


def generate_for_prompts(prompts: Sequence[Prompt], settings: GenerateSettings) -> Iterator[Title]:
    """Yield a title for each of a program's own prompts, as `generate` does."""
    return _generate(Session(settings), one_title_each(prompts), choose_seed(settings))


def generate_interactively(settings: GenerateSettings, ask: Callable[[str], str]) -> Iterator[Title]:
    """Yield titles for one category and keywords after another, as `ask` answers, until it raises EOFError."""
    session, seed = Session(settings), choose_seed(settings)
    with session.open_engine() as write:
        for number in range(seed, seed + 2**31):
            try:
                prompt = Prompt(ask("category: ").strip() or None, parse_keywords(ask("keywords: ").strip() or None))
            except EOFError:
                return
            try:
                requests = single_request(prompt, settings.number)
                total = session.check(requests)
                yield from _draw(session, _drawer(session, total, number), write, requests, total)
            except RedditgenError as error:
                _log.warning("%s", error)


def _generate(session: Session, requests: PromptRequests, seed: int) -> Iterator[Title]:
    total = session.check(requests)
    return _open_and_draw(session, _drawer(session, total, seed), requests, total)


def _drawer(session: Session, total: int, seed: int) -> TitleDrawer:
    return session.drawer(total, seed, SeenTitles() if session.is_unique else None, DrawState())


def _open_and_draw(session: Session, drawer: TitleDrawer, requests: PromptRequests, total: int) -> Iterator[Title]:
    with session.open_engine() as write:
        yield from _draw(session, drawer, write, requests, total)


def _draw(
    session: Session, drawer: TitleDrawer, write: WriteTexts, requests: PromptRequests, total: int
) -> Iterator[Title]:
    for number, portion in enumerate(session.portions(requests)):
        if drawer.state.is_over:
            break
        yield from session.draw_portion(drawer, write, number, portion)
    report_counts(session.settings, total, drawer.state.counts)
