"""Samples texts from a run for the categories and keywords of held-out titles, and finds the title in each."""

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
    """A sampled text: the category and keywords of its prompt, and its title or the fault for which it has none."""

    category: str | None
    keywords: tuple[str, ...]
    title: str = ""
    fault: str | None = None


def draw_samples(
    settings: GenerateSettings, run: ModelDir, records: Sequence[Record], n: int, seed: int
) -> list[Sample]:
    """Sample `n` texts for the prompts of the records in random order, each prompt equally often, give or take one.

    Prompts that fill the model's context are left out. Raises InputError where all do.
    """
    run_info = run.run_info()
    prompt_text, rng = choose_prompt_text(settings, run_info, ()), random.Random(seed)
    has_keywords = run_info.sections is None or "keywords" in run_info.sections
    candidates = [_prompt_from_record(record, has_keywords=has_keywords) for record in records]
    ids = tokenize_prompts(
        [prompt_text.longest_prompt(prompt) for prompt in candidates], run.tokenizer(), run_info.record_tokens
    )
    fitting = [prompt for prompt, row in zip(candidates, ids, strict=True) if len(row) < run.hyperparameters().n_ctx]
    if not fitting:
        raise InputError(f"run {settings.run}: every prompt fills its context; shorten the categories and keywords")
    prompts = list(_shuffled(fitting, n, rng))
    starts = [prompt_text.prompt(prompt, rng) for prompt in prompts]
    bar = Progress(f"sampling {settings.run}", unit="texts", total=n)
    rows = block_size(settings.batch_size, run.hyperparameters(), settings.length)
    with open_engine(settings, run, rows) as write, closing(write(starts, seed)) as texts, bar as progress:
        samples = []
        for prompt, start, text in zip(prompts, starts, texts, strict=True):
            samples.append(_make_sample(prompt, prompt_text.parse(start, text)))
            progress.update(1)
    return samples


def _prompt_from_record(record: Record, *, has_keywords: bool) -> Prompt:
    words = tuple((record.keywords or "").split()) if has_keywords else ()
    return Prompt(record.category, words if record.keywords is not None else None)


def _shuffled(prompts: Sequence[Prompt], n: int, rng: random.Random) -> Iterator[Prompt]:
    """Yield `n` prompts: all of them in random order, then all in another order, and so on."""
    for start in range(0, n, len(prompts)):
        yield from rng.sample(prompts, len(prompts))[: n - start]


def _make_sample(prompt: Prompt, record_or_fault: Record | str) -> Sample:
    if isinstance(record_or_fault, str):
        return Sample(prompt.category, prompt.keywords or (), fault=record_or_fault)
    return Sample(prompt.category, prompt.keywords or (), title=record_or_fault.title or "")
