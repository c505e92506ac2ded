"""Generation: prompts from a category and keywords, and of what the model writes only whole, clean titles."""

import logging
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from redditgen import keywords as keyword_rules
from redditgen import markup
from redditgen.engines import torch_engine
from redditgen.errors import InputError, UsageError
from redditgen.gpt2.rundir import Mark, find_run
from redditgen.markup import Record
from redditgen.output import refuse_existing, write_sidecar
from redditgen.progress import Progress
from redditgen.rows import check_rows_file, write_rows
from redditgen.settings import GenerateSettings

COLUMNS = ("title", "category", "keywords", "prompt", "run", "step", "engine", "seed", "synthetic")
ROUNDS_WITHOUT_A_TITLE = 3  # blocks in a row that may give nothing before generation is given up

Write = Callable[[Sequence[str], int], Iterator[str]]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prompt:
    """What is asked of a title; None where the model chooses."""

    category: str | None = None
    keywords: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Title:
    """A generated title and where it comes from: the keys and columns of generated files."""

    title: str
    category: str | None
    keywords: str | None
    prompt: str
    run: str
    step: int
    engine: str
    seed: int
    synthetic: bool = True


def generate(settings: GenerateSettings) -> Iterator[Title]:
    """Titles, as they are written, `settings.n` of them if the model ends enough of its texts.

    Raises InputError if it ends none.
    """
    prompt = Prompt(settings.category, _keywords(settings.keywords))
    yield from titles([prompt] * settings.n, settings)


def write(settings: GenerateSettings) -> int:
    """Write titles to `settings.out`, with a sidecar; gives their number."""
    if settings.out is None:
        raise UsageError("--out: a file to write is needed here")
    columns = ("title",) if settings.out.suffix.lower() == ".txt" else COLUMNS
    check_rows_file(settings.out, columns)
    refuse_existing(settings.out, settings.overwrite)
    with Progress(str(settings.out), unit="titles", total=settings.n) as progress:
        rows = (_counted(title, progress) for title in generate(settings))
        number = write_rows(settings.out, rows, columns)
    run = find_run(settings.run, settings.checkpoint_dir)
    write_sidecar(settings.out, settings, inputs=[], counts={"titles": number}, step=run.step(), synthetic=True)
    return number


def _counted(title: Title, progress: Progress) -> dict[str, object]:
    progress.update(1)
    return vars(title)


def titles(prompts: Sequence[Prompt], settings: GenerateSettings) -> Iterator[Title]:
    """One title for each prompt, in blocks of `settings.batch_size`; a prompt whose text is no title is tried again."""
    run = find_run(settings.run, settings.checkpoint_dir)
    mark, step = run.mark(), run.step()
    seed = random.SystemRandom().randrange(2**31) if settings.seed is None else settings.seed
    _log.info("seed %d", seed)
    write = torch_engine.generate(settings, run)
    rng = random.Random(seed)
    todo = [(prompt, _text(prompt, mark, rng)) for prompt in prompts]
    losses: Counter[str] = Counter()
    block = fruitless = 0
    while todo and fruitless < ROUNDS_WITHOUT_A_TITLE:
        now, todo = todo[: settings.batch_size], todo[settings.batch_size :]
        fruitless += 1
        for asked, text in zip(now, write([text for _, text in now], block_seed(seed, block)), strict=True):
            found = _found(text, mark, losses)
            if found is None:
                todo.append(asked)
                continue
            fruitless = 0
            yield Title(
                title=found.title or "",
                category=found.category,
                keywords=found.keywords,
                prompt=asked[1],
                run=settings.run,
                step=step,
                engine="torch",
                seed=seed,
            )
        block += 1
    _report(len(prompts), len(todo), losses, settings)


def block_seed(seed: int, block: int) -> int:
    """A block's own seed, so that it does not depend on those before it."""
    return random.Random(f"{seed}:{block}").randrange(2**31)


def _keywords(text: str | None) -> tuple[str, ...] | None:
    """Keywords as the user typed them, between blanks or commas, in the form that encode gives them."""
    if text is None:
        return None
    found = (keyword_rules.normalise(word) for word in text.replace(",", " ").split())
    return tuple(dict.fromkeys(word for word in found if word))


def _text(prompt: Prompt, mark: Mark, rng: random.Random) -> str:
    """The start of the record that a prompt asks for, as far as the run's records have such sections.

    Raises UsageError for a category or keywords that the run's records never had.
    """
    for name in ("category", "keywords"):
        if getattr(prompt, name) and mark.sections and name not in mark.sections:
            raise UsageError(f"--{name}: the records of this run have no {name}; encode its dataset with them")
    if prompt.category is None and prompt.keywords is None:
        return markup.prompt(Record(), next(iter(mark.sections), "category"))
    category = keyword_rules.category(prompt.category) if prompt.category else _some_category(mark, rng)
    keywords = " ".join(prompt.keywords or ()) if "keywords" in (mark.sections or markup.SECTIONS) else None
    return markup.prompt(Record(category=category, keywords=keywords), "title")


def _some_category(mark: Mark, rng: random.Random) -> str | None:
    """A category of the run's, as often as it stood in its records: a prompt for keywords alone still needs one."""
    if not mark.categories:
        return None
    return rng.choices(list(mark.categories), weights=list(mark.categories.values()))[0]


def _found(text: str, mark: Mark, losses: Counter[str]) -> Record | None:
    """The record that a text holds, if it is whole and its title is one; what is wrong otherwise is counted."""
    record = markup.parse(text)
    if not text.endswith(markup.END):
        losses["did not end"] += 1
    elif record is None or record.title is None:
        losses["were no record"] += 1
    elif not record.title.strip():
        losses["were empty"] += 1
    elif markup.has_markup(record.title):
        losses["held markup"] += 1
    else:
        return record
    return None


def _report(asked: int, missing: int, losses: Counter[str], settings: GenerateSettings) -> None:
    why = ", ".join(f"{number} {what}" for what, number in losses.items())
    if missing == asked:
        raise InputError(
            f"run {settings.run}: wrote no whole title ({why}, of {settings.length} tokens at most); "
            "raise --length, or finetune for longer"
        )
    if missing:
        _log.warning("%d of %d titles are missing: %s; raise --length, or finetune for longer", missing, asked, why)
    elif losses:
        _log.info("drawn again: %s", why)
