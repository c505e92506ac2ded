"""Generation: prompts from a category and keywords, and of what the model writes only whole, clean titles."""

import dataclasses
import logging
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

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
ROUNDS_WITHOUT_A_TITLE = 10  # blocks in a row that may give nothing before generation is given up

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
    """Titles as they are written: `settings.n` of them, or fewer, with a warning, where too many texts are no title.

    Raises InputError if none is.
    """
    return titles([Prompt(settings.category, _keywords(settings.keywords))] * settings.n, settings)


def write(settings: GenerateSettings) -> int:
    """Write titles to `settings.out`, with a sidecar; gives their number."""
    out = settings.out
    if out is None:
        raise UsageError("--out: a file to write is needed here")
    columns = ("title",) if out.suffix.lower() == ".txt" else COLUMNS
    check_rows_file(out, columns)
    refuse_existing(out, settings.overwrite)
    run = find_run(settings.run, settings.checkpoint_dir)
    settings = dataclasses.replace(settings, seed=_seed(settings))
    with Progress(str(out), unit="titles", total=settings.n) as progress:
        number = write_rows(out, (_counted(title, progress) for title in generate(settings)), columns)
    weights = Path(f"{run.latest()}.index")  # it holds a checksum of every tensor
    write_sidecar(out, settings, inputs=[weights], counts={"titles": number}, step=run.step(), synthetic=True)
    _log.info("%s: %d titles", out, number)
    return number


def _counted(title: Title, progress: Progress) -> dict[str, object]:
    progress.update(1)
    return vars(title)


def _seed(settings: GenerateSettings) -> int:
    """The settings' seed, or a new one, said so that the titles can be made again."""
    if settings.seed is not None:
        return settings.seed
    seed = random.SystemRandom().randrange(2**31)
    _log.info("--seed %d makes these titles again", seed)
    return seed


def titles(prompts: Sequence[Prompt], settings: GenerateSettings) -> Iterator[Title]:
    """One title for each prompt, in blocks of `settings.batch_size`; a prompt whose text is no title is tried again."""
    run = find_run(settings.run, settings.checkpoint_dir)
    mark, step, seed = run.mark(), run.step(), _seed(settings)
    write = torch_engine.generate(settings, run)
    rng = random.Random(seed)
    todo = [_text(prompt, mark, rng) for prompt in prompts]
    faults: Counter[str] = Counter()
    block = fruitless = 0
    while todo and fruitless < ROUNDS_WITHOUT_A_TITLE:
        now, todo = todo[: settings.batch_size], todo[settings.batch_size :]
        again = []
        for prompt, text in zip(now, write(now, block_seed(seed, block)), strict=True):
            match _record_or_fault(text):
                case Record() as record:
                    yield _title(record, prompt=prompt, run=settings.run, step=step, seed=seed)
                case fault:
                    faults[fault] += 1
                    again.append(prompt)
        fruitless = fruitless + 1 if again == now else 0
        todo += again
        block += 1
    _report(len(prompts), len(todo), faults, settings)


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


def _record_or_fault(text: str) -> Record | str:
    """The record of a text, or what keeps it from being a title."""
    record = markup.parse(text)
    if not text.endswith(markup.END):
        return "did not end"
    if record is None or record.title is None:
        return "were no record"
    if not record.title.strip():
        return "were empty"
    return "held markup" if markup.has_markup(record.title) else record


def _title(record: Record, *, prompt: str, run: str, step: int, seed: int) -> Title:
    return Title(
        title=record.title or "",
        category=record.category,
        keywords=record.keywords,
        prompt=prompt,
        run=run,
        step=step,
        engine="torch",
        seed=seed,
    )


def _report(asked: int, missing: int, faults: Counter[str], settings: GenerateSettings) -> None:
    why = ", ".join(f"{number} {fault}" for fault, number in faults.items())
    if missing == asked:
        raise InputError(
            f"run {settings.run}: wrote no whole title ({why} within {settings.length} tokens); "
            "raise --length, or finetune for longer"
        )
    if missing:
        _log.warning("%d of %d titles are missing: %s; raise --length, or finetune for longer", missing, asked, why)
    elif faults:
        _log.info("drawn again: %s", why)
