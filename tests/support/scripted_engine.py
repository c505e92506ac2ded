"""An engine that writes the texts of a script in place of a model's."""

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, nullcontext

from redditgen.engines.base import SamplerOptions, Sampling, WriteTexts
from redditgen.gpt2.model_dir import ModelDir


class ScriptedEngine:
    """Yields texts by a function; notes what it is asked for and when it is closed."""

    def __init__(self, text_of: Callable[[str, int], str]) -> None:
        """`text_of` makes a text of its prompt and of how many texts there were before it."""
        self.text_of = text_of
        self.asked: list[tuple[list[str], int]] = []
        self.given = self.closed = 0

    def open_writer(
        self, run: ModelDir, sampling: Sampling, options: SamplerOptions
    ) -> AbstractContextManager[WriteTexts]:
        return nullcontext(self.write)

    def write(self, prompts: Sequence[str], seed: int) -> Generator[str]:
        self.asked.append((list(prompts), seed))
        try:
            for prompt in prompts:
                self.given += 1
                yield self.text_of(prompt, self.given - 1)
        finally:
            self.closed += 1
