"""Texts that a run writes for the categories and keywords of held-out titles, one a prompt, and what became of each."""

import random
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from redditgen.errors import InputError
from redditgen.generate import Prompt
from redditgen.generate.stage import ENGINES
from redditgen.generate.texts import texts
from redditgen.gpt2.examples import prompt_ids
from redditgen.gpt2.rundir import ModelDir
from redditgen.markup import Record
from redditgen.progress import Progress
from redditgen.settings import GenerateSettings


@dataclass(frozen=True)
class Sample:
    """A text by what was asked of it: its title, or the fault that keeps it from being one."""

    category: str | None
    keywords: tuple[str, ...]
    title: str = ""
    fault: str | None = None


def sampled(settings: GenerateSettings, run: ModelDir, records: Sequence[Record], n: int, seed: int) -> list[Sample]:
    """`n` texts, for records in random order, each as often as another; raises InputError where no prompt has room."""
    mark = run.mark()
    makes, rng = texts(settings, mark, ()), random.Random(seed)
    has_keywords = mark.sections is None or "keywords" in mark.sections
    asked = [_prompt(record, has_keywords=has_keywords) for record in records]
    ids = prompt_ids([makes.longest(prompt) for prompt in asked], run.tokenizer(), mark.record_tokens)
    fitting = [prompt for prompt, row in zip(asked, ids, strict=True) if len(row) < run.hparams().n_ctx]
    if not fitting:
        raise InputError(f"run {settings.run}: every prompt fills its context; shorten the categories and keywords")
    prompts = list(_shuffled(fitting, n, rng))
    written = [makes.text(prompt, rng) for prompt in prompts]
    bar = Progress(f"sampling {settings.run}", unit="texts", total=n)
    with ENGINES["torch"](settings, run) as write, closing(write(written, seed)) as made, bar as progress:
        found = []
        for prompt, start, text in zip(prompts, written, made, strict=True):
            found.append(_sample(prompt, makes.record(start, text)))
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
