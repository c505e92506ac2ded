"""`redditgen generate`: yields titles for prompts from the settings, from a program, or from a user at a terminal.

The run, the prompts and the filters are checked before the first title is sampled.
"""

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
    """Yield titles while they are generated: as many as the settings ask for, or fewer, with a warning, where the
    filters refuse too many texts.

    Raises InputError where no title is left, and RedditgenError where the run or a file of the settings is missing.
    """
    return _generate(Session(settings), requests_from_settings(settings), choose_seed(settings))


def generate_for_prompts(prompts: Sequence[Prompt], settings: GenerateSettings) -> Iterator[Title]:
    """Yield one title for each of `prompts`, with the warnings and errors of `generate`."""
    return _generate(Session(settings), one_title_each(prompts), choose_seed(settings))


def generate_interactively(settings: GenerateSettings, ask: Callable[[str], str]) -> Iterator[Title]:
    """Ask for a category and keywords, yield titles for them, and repeat until `ask` raises EOFError.

    `ask` takes a label, such as "category: ", and returns the user's answer. An error about one prompt is logged, and
    the next prompt is asked for. The seed of each prompt is one higher than that of the prompt before it.
    """
    session, seed = Session(settings), choose_seed(settings)
    with session.open_engine() as write:
        for number in range(seed, seed + 2**31):
            try:
                prompt = Prompt(ask("category: ").strip() or None, parse_keywords(ask("keywords: ").strip() or None))
            except EOFError:
                return
            try:
                requests = single_request(prompt, settings.title_count)
                total = session.check(requests)
                yield from _draw(session, _make_drawer(session, total, number), write, requests, total)
            except RedditgenError as error:
                _log.warning("%s", error)


def _generate(session: Session, requests: PromptRequests, seed: int) -> Iterator[Title]:
    total = session.check(requests)
    return _open_and_draw(session, _make_drawer(session, total, seed), requests, total)


def _make_drawer(session: Session, total: int, seed: int) -> TitleDrawer:
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
