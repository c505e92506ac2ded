"""A session: the run, the prompt texts, the filters and the engine with which one command draws all its titles."""

import logging
import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from functools import cached_property
from pathlib import Path
from typing import Any

from redditgen.engines.base import SamplerOptions, Sampling, WriteTexts, block_size
from redditgen.engines.ctranslate2 import engine as ctranslate2_engine
from redditgen.engines.ctranslate2.sampler import choose_precision
from redditgen.engines.data.examples import longest_prompt_length, tokenize_prompts
from redditgen.engines.gpt2simple import engine as gpt2simple_engine
from redditgen.errors import UsageError
from redditgen.generate.filters import Filter, SeenTitles, blocked_categories, choose_filters
from redditgen.generate.prompt_text import RawText, choose_prompt_text
from redditgen.generate.prompts import PromptRequest, PromptRequests, check_requests
from redditgen.generate.rounds import (
    BLOCKS_PER_PORTION,
    MAX_BLOCKS_WITHOUT_TITLE,
    DrawLimits,
    DrawState,
    PromptQuota,
    TitleDrawer,
    cut_into_portions,
)
from redditgen.generate.title import Title, make_title
from redditgen.gpt2.find import find_run
from redditgen.gpt2.model_dir import ModelDir
from redditgen.gpt2.tokenizer import Tokenizer
from redditgen.settings import GenerateSettings
from redditgen.titles.novelty import INDEX_FILE

ENGINE_WRITERS = {"torch": ctranslate2_engine.open_writer, "gpt-2-simple": gpt2simple_engine.open_writer}

_log = logging.getLogger(__name__)


def open_engine(settings: GenerateSettings, run: ModelDir, rows: int) -> AbstractContextManager[WriteTexts]:
    """Open the engine that the settings name, to sample in blocks of `rows` prompts."""
    return ENGINE_WRITERS[settings.engine](run, *engine_values(settings, rows))


def engine_values(settings: GenerateSettings, rows: int) -> tuple[Sampling, SamplerOptions]:
    """Convert the settings into the values that engines take."""
    sampling = Sampling(
        temperature=settings.temperature,
        top_k=settings.top_k,
        top_p=settings.top_p,
        length=settings.length,
        repetition_penalty=settings.repetition_penalty,
    )
    options = SamplerOptions(
        block_size=rows,
        precision=settings.precision,
        ray_address=settings.ray_address,
        tf1_python=settings.tf1_python,
    )
    return sampling, options


class Session:
    """Draws titles with one run and the settings of one command."""

    def __init__(self, settings: GenerateSettings) -> None:
        """Find the run. Raises RedditgenError where it, or something else that the settings name, is missing."""
        self.settings = settings
        self.run = find_run(settings.run, settings.checkpoint_dir, settings.step)
        self.step = self.run.step()
        self._run_info = self.run.run_info()
        self._blocked = blocked_categories(settings)
        self._prompt_text = choose_prompt_text(settings, self._run_info, self._blocked)
        self._is_raw = isinstance(self._prompt_text, RawText)
        self._block_size = block_size(settings.batch_size, self.run.hyperparameters(), settings.length)
        self.is_unique = settings.unique and not self._is_raw

    @property
    def inputs(self) -> list[Path]:
        """The files that the titles depend on: weights, prompts, word list and title index, where they are used."""
        index = self.run.path / INDEX_FILE
        uses_index = not self._is_raw and self.settings.novel is not False and index.exists()
        return [
            self.run.weights_file(),
            *filter(None, (self.settings.prompts, self.settings.words, index if uses_index else None)),
        ]

    @property
    def facts(self) -> dict[str, Any]:
        """Values for the sidecar: the step, and the batch size and precision that `auto` stands for."""
        precision = choose_precision(self.settings.precision) if self.settings.engine == "torch" else "float32"
        return {"step": self.step, "batch_size": self._block_size, "precision": precision}

    def check(self, requests: PromptRequests) -> int:
        """Check all requests and return the number of titles that they ask for.

        Raises RedditgenError, before any text is sampled, for requests that can't be met.
        """
        return check_requests(requests, self._run_info, self._blocked, self._refuse_too_long)

    def drawer(self, total: int, seed: int, seen: SeenTitles | None, state: DrawState) -> TitleDrawer:
        """Return a TitleDrawer for `total` titles; `seen` and `state` are those of the portions before."""
        return TitleDrawer(self._prompt_text, self._filters, self._limits(total), seed=seed, seen=seen, state=state)

    def open_engine(self) -> AbstractContextManager[WriteTexts]:
        """Open the engine for any number of portions."""
        return open_engine(self.settings, self.run, self._block_size)

    def portions(self, requests: PromptRequests) -> Iterator[list[PromptQuota]]:
        """Cut the requests into portions of as many titles as BLOCKS_PER_PORTION blocks hold."""
        return cut_into_portions(requests, BLOCKS_PER_PORTION * self._block_size)

    def draw_portion(
        self, drawer: TitleDrawer, write: WriteTexts, number: int, portion: list[PromptQuota]
    ) -> Iterator[Title]:
        """Yield the titles of a portion while they are drawn."""
        with closing(drawer.draw_portion(write, number, portion)) as drawn_titles:
            for drawn in drawn_titles:
                yield make_title(drawn, self.settings, step=self.step, seed=drawer.seed)

    @cached_property
    def _filters(self) -> list[Filter]:
        return choose_filters(self.settings, self.run, self._blocked, is_raw=self._is_raw)

    def _limits(self, total: int) -> DrawLimits:
        # Greedy sampling writes the same text at every try.
        is_greedy = self.settings.temperature == 0 or self.settings.top_k == 1
        return DrawLimits(
            block_rows=self._block_size,
            max_tries=1 if is_greedy else self.settings.max_tries,
            max_misses=MAX_BLOCKS_WITHOUT_TITLE * min(self._block_size, total),
        )

    def _refuse_too_long(self, request: PromptRequest) -> None:
        text, context = self._prompt_text.longest_prompt(request.prompt), self.run.hyperparameters().n_ctx
        if len(text.encode("utf8", "replace")) < context:  # no token is shorter than a byte
            return
        try:
            ids = tokenize_prompts([text], self._tokenizer, self._run_info.record_tokens)
            longest_prompt_length(ids, [text], context)
        except UsageError as error:
            raise UsageError(f"{request.location}{error}") from error

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return self.run.tokenizer()


def choose_seed(settings: GenerateSettings) -> int:
    """Return the seed of the settings, or a random one, which is logged so that the titles can be reproduced."""
    if settings.seed is not None:
        return settings.seed
    seed = random.SystemRandom().randrange(2**31)
    _log.info("--seed %d makes these titles again", seed)
    return seed
