"""Texts that a run writes for the categories and keywords of held-out titles, one a prompt, and what became of each."""

import random
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from redditgen.engines.base import block_size
from redditgen.engines.data.examples import tokenize_prompts
from redditgen.errors import InputError
from redditgen.generate.prompt_text import choose_prompt_text
from redditgen.generate.prompts import Prompt
from redditgen.generate.session import open_engine
from redditgen.gpt2.model_dir import ModelDir
from redditgen.runtime.progress import Progress
from redditgen.settings import GenerateSettings
from redditgen.titles.record import Record


@dataclass(frozen=True)
class Sample:
    """A text by what was asked of it: its title, or the fault that keeps it from being one."""

    category: str | None
    keywords: tuple[str, ...]
    title: str = ""
    fault: str | None = None


def draw_samples(
    settings: GenerateSettings, run: ModelDir, records: Sequence[Record], n: int, seed: int
) -> list[Sample]:
    """`n` texts, for records in random order, each as often as another; raises InputError where no prompt has room."""
    run_info = run.run_info()
    prompt_text, rng = choose_prompt_text(settings, run_info, ()), random.Random(seed)
    has_keywords = run_info.sections is None or "keywords" in run_info.sections
    asked = [_prompt(record, has_keywords=has_keywords) for record in records]
    ids = tokenize_prompts(
        [prompt_text.longest_prompt(prompt) for prompt in asked], run.tokenizer(), run_info.record_tokens
    )
    fitting = [prompt for prompt, row in zip(asked, ids, strict=True) if len(row) < run.hyperparameters().n_ctx]
    if not fitting:
        raise InputError(f"run {settings.run}: every prompt fills its context; shorten the categories and keywords")
    prompts = list(_shuffled(fitting, n, rng))
    written = [prompt_text.prompt(prompt, rng) for prompt in prompts]
    bar = Progress(f"sampling {settings.run}", unit="texts", total=n)
    rows = block_size(settings.batch_size, run.hyperparameters(), settings.length)
    with open_engine(settings, run, rows) as write, closing(write(written, seed)) as made, bar as progress:
        found = []
        for prompt, start, text in zip(prompts, written, made, strict=True):
            found.append(_sample(prompt, prompt_text.parse(start, text)))
            progress.update(1)
    return found


def _prompt(record: Record, *, has_keywords: bool) -> Prompt:
    words = tuple((record.keywords or "").split()) if has_keywords else ()
    return Prompt(record.category, words if record.keywords is not None else None)


def _shuffled(prompts: Sequence[Prompt], n: int, rng: random.Random) -> Iterator[Prompt]:
    for start in range(0, n, len(prompts)):
        yield from rng.sample(prompts, len(prompts))[: n - start]


def _sample(prompt: Prompt, found: Record | str) -> Sample:
    if isinstance(found, str):
        return Sample(prompt.category, prompt.keywords or (), fault=found)
    return Sample(prompt.category, prompt.keywords or (), title=found.title or "")
