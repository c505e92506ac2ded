"""Generation: prompts from a category and keywords, and of what the model writes only whole, clean titles.

With a prefix of the user's own there is no telling what a title is: each text is then kept as it comes.
"""

import contextlib
import dataclasses
import itertools
import logging
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from redditgen import keywords as keyword_rules
from redditgen import markup
from redditgen.engines import gpt2simple, torch_engine
from redditgen.errors import InputError, UsageError
from redditgen.gpt2.rundir import NO_RECORDS, Mark, ModelDir, find_run
from redditgen.markup import Record
from redditgen.output import refuse_existing, write_sidecar
from redditgen.progress import Progress
from redditgen.rows import check_rows_file, write_rows
from redditgen.settings import GenerateSettings

COLUMNS = ("title", "category", "keywords", "prompt", "run", "step", "engine", "seed", "synthetic")
BLOCKS_WITHOUT_A_TITLE = 10  # in a row, before generation is given up
_ENGINES = {"torch": torch_engine.generate, "gpt-2-simple": gpt2simple.generate}

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
    run = find_run(settings.run, settings.checkpoint_dir, settings.step)
    prompt = Prompt(settings.category, _keywords(settings.keywords))
    asks_nothing = not (prompt.category or prompt.keywords)
    if settings.prefix is not None or (asks_nothing and run.mark().record_tokens == NO_RECORDS):
        return _raw(settings)
    return titles([prompt] * settings.n, settings)


def write(settings: GenerateSettings) -> int:
    """Write titles to `settings.out`, with a sidecar; gives their number."""
    out = settings.out
    if out is None:
        raise UsageError("--out: a file to write is needed here")
    columns = ("title",) if out.suffix.lower() == ".txt" else COLUMNS
    check_rows_file(out, columns)
    refuse_existing(out, settings.overwrite)
    run = find_run(settings.run, settings.checkpoint_dir, settings.step)
    settings = dataclasses.replace(settings, seed=_seed(settings))
    with Progress(str(out), unit="titles", total=settings.n) as progress:
        rows = (_counted(title, progress) for title in generate(settings))
        number = write_rows(out, rows, columns, delimiter=settings.sample_delim)
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
    """One title for each prompt; a prompt whose text is no title is tried again when all others have had their turn."""
    run = find_run(settings.run, settings.checkpoint_dir, settings.step)
    mark, step, seed = run.mark(), run.step(), _seed(settings)
    rng = random.Random(seed)
    todo = [_text(prompt, mark, rng) for prompt in prompts]
    faults: Counter[str] = Counter()
    fruitless, patience = 0, BLOCKS_WITHOUT_A_TITLE * min(settings.batch_size, len(todo))
    for round_seed in _round_seeds(seed):
        again = []
        for at, (prompt, text) in enumerate(_written(settings, run, todo, round_seed)):
            match _record_or_fault(text, mark):
                case Record() as record:
                    fruitless = 0
                    yield _title(record, settings, prompt=prompt, step=step, seed=seed)
                case fault:
                    faults[fault] += 1
                    fruitless += 1
                    again.append(prompt)
            if fruitless >= patience:
                again += todo[at + 1 :]
                break
        todo = again
        if not todo or fruitless >= patience:
            break
    _report(len(prompts), len(todo), faults, settings)


def _round_seeds(seed: int) -> Iterator[int]:
    yield seed
    for number in itertools.count(1):
        yield random.Random(f"{seed}, again {number}").randrange(2**31)


def _written(settings: GenerateSettings, run: ModelDir, prompts: Sequence[str], seed: int) -> Iterator[tuple[str, str]]:
    """Each prompt with its text; the engine stops when nobody asks for more."""
    with contextlib.closing(_ENGINES[settings.engine](settings, run, prompts, seed)) as texts:
        yield from zip(prompts, texts, strict=True)


def _raw(settings: GenerateSettings) -> Iterator[Title]:
    """Texts that go on from the user's prefix, each up to `settings.truncate`."""
    run = find_run(settings.run, settings.checkpoint_dir, settings.step)
    step, seed = run.step(), _seed(settings)
    prefix = settings.prefix or ""
    for prompt, text in _written(settings, run, [prefix] * settings.n, seed):
        continued = text[len(prompt) :]
        if settings.truncate:
            continued, _, _ = continued.partition(settings.truncate)
        title = (prompt if settings.include_prefix else "") + continued
        yield _title(Record(title=title), settings, prompt=prompt, step=step, seed=seed)


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
        if getattr(prompt, name) and mark.sections is not None and name not in mark.sections:
            raise UsageError(f"--{name}: the records of this run have no {name}; encode its dataset with them")
    if mark.sections == () or (prompt.category is None and prompt.keywords is None):
        return mark.opening()
    category = keyword_rules.category(prompt.category) if prompt.category else _some_category(mark, rng)
    in_records = mark.sections is None or "keywords" in mark.sections
    keywords = " ".join(prompt.keywords or ()) if in_records else None
    return markup.prompt(Record(category=category, keywords=keywords), "title")


def _some_category(mark: Mark, rng: random.Random) -> str | None:
    """A category of the run's, as often as it stood in its records: a prompt for keywords alone still needs one."""
    if not mark.categories:
        return None
    return rng.choices(list(mark.categories), weights=list(mark.categories.values()))[0]


def _record_or_fault(text: str, mark: Mark) -> Record | str:
    """The record of a text, or what keeps it from being a title."""
    record = markup.parse(text)
    if not text.endswith(markup.END):
        return "did not end"
    if record is None or record.title is None or not _is_of(mark, record):
        return "were no record"
    if not record.title.strip():
        return "were empty"
    return "held markup" if markup.has_markup(record.title) else record


def _is_of(mark: Mark, record: Record) -> bool:
    """Whether a record has marks just if those of the run have."""
    return mark.sections is None or record.marked == bool(mark.sections)


def _title(record: Record, settings: GenerateSettings, *, prompt: str, step: int, seed: int) -> Title:
    return Title(
        title=record.title or "",
        category=record.category,
        keywords=record.keywords,
        prompt=prompt,
        run=settings.run,
        step=step,
        engine=settings.engine,
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
