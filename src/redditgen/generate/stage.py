"""What a command needs to draw titles, made once: the run, its texts, the filters, the engine and its blocks."""

import logging
import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from functools import cached_property
from pathlib import Path
from typing import Any

from redditgen import novelty
from redditgen.engines import Write, gpt2simple, torch_engine
from redditgen.errors import UsageError
from redditgen.generate.drawing import BLOCKS_A_WINDOW, BLOCKS_WITHOUT_A_TITLE, Drawing, Limits, Piece, State, windows
from redditgen.generate.filters import Filter, Seen, blocked_categories, filters
from redditgen.generate.prompts import Ask, Asks, check
from redditgen.generate.texts import Raw, texts
from redditgen.generate.titles import Title, title
from redditgen.gpt2.examples import longest_prompt, prompt_ids
from redditgen.gpt2.places import find_run
from redditgen.gpt2.sampling import block_size, precision
from redditgen.gpt2.tokenizer import Tokenizer
from redditgen.settings import GenerateSettings

ENGINES = {"torch": torch_engine.writing, "gpt-2-simple": gpt2simple.writing}

_log = logging.getLogger(__name__)


class Stage:
    """Raises RedditgenError where something is not there."""

    def __init__(self, settings: GenerateSettings) -> None:
        self.settings = settings
        self.run = find_run(settings.run, settings.checkpoint_dir, settings.step)
        self.step = self.run.step()
        self._mark = self.run.mark()
        self._blocked = blocked_categories(settings)
        self._texts = texts(settings, self._mark, self._blocked)
        self._is_raw = isinstance(self._texts, Raw)
        self._block = block_size(settings.batch_size, self.run.hparams(), settings.length)
        self.is_unique = settings.unique and not self._is_raw

    @property
    def inputs(self) -> list[Path]:
        """The files that the titles depend on."""
        index = self.run.path / novelty.NAME
        is_indexed = not self._is_raw and self.settings.novel is not False and index.exists()
        return [
            self.run.weights(),
            *filter(None, (self.settings.prompts, self.settings.words, index if is_indexed else None)),
        ]

    @property
    def facts(self) -> dict[str, Any]:
        """What `auto` and the like have come to."""
        kept_in = precision(self.settings.precision) if self.settings.engine == "torch" else "float32"
        return {"step": self.step, "batch_size": self._block, "precision": kept_in}

    def check(self, asks: Asks) -> int:
        """The number of titles that are asked for; raises RedditgenError for what can't be, before anything is made."""
        return check(asks, self._mark, self._blocked, self._refuse_too_long)

    def drawing(self, total: int, seed: int, seen: Seen | None, state: State) -> Drawing:
        return Drawing(self._texts, self._filters, self._limits(total), seed=seed, seen=seen, state=state)

    def writing(self) -> AbstractContextManager[Write]:
        """The engine, opened for any number of windows."""
        return ENGINES[self.settings.engine](self.settings, self.run)

    def windows(self, asks: Asks) -> Iterator[list[Piece]]:
        return windows(asks, BLOCKS_A_WINDOW * self._block)

    def made(self, drawing: Drawing, write: Write, number: int, window: list[Piece]) -> Iterator[Title]:
        """The titles of a window."""
        with closing(drawing.window(write, number, window)) as drawn:
            for one in drawn:
                yield title(one, self.settings, step=self.step, seed=drawing.seed)

    @cached_property
    def _filters(self) -> list[Filter]:
        return filters(self.settings, self.run, self._blocked, is_raw=self._is_raw)

    def _limits(self, total: int) -> Limits:
        # The likeliest text is the same again and again.
        is_greedy = self.settings.temperature == 0 or self.settings.top_k == 1
        return Limits(
            block=self._block,
            tries=1 if is_greedy else self.settings.max_tries,
            patience=BLOCKS_WITHOUT_A_TITLE * min(self._block, total),
        )

    def _refuse_too_long(self, ask: Ask) -> None:
        text, context = self._texts.longest(ask.prompt), self.run.hparams().n_ctx
        if len(text.encode("utf8", "replace")) < context:  # no token is shorter than a byte
            return
        try:
            longest_prompt(prompt_ids([text], self._tokenizer, self._mark.record_tokens), [text], context)
        except UsageError as error:
            raise UsageError(f"{ask.place}{error}") from error

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return self.run.tokenizer()


def seed_of(settings: GenerateSettings) -> int:
    """The settings' seed, or a new one, said so that the titles can be made again."""
    if settings.seed is not None:
        return settings.seed
    seed = random.SystemRandom().randrange(2**31)
    _log.info("--seed %d makes these titles again", seed)
    return seed
