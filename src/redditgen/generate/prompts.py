"""What is asked of titles: a category and keywords from the command line, from a file, or from another title."""

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from redditgen import keywords as keyword_rules
from redditgen.encode.spacy_keywords import finder
from redditgen.errors import InputError, UsageError, did_you_mean
from redditgen.gpt2.mark import Mark
from redditgen.settings import EncodeSettings, GenerateSettings
from redditgen.tables import table

COLUMNS = ("category", "keywords", "n")
_MOST_OF_A_TITLE = 3  # keywords, as many as encode gives a record
_NAMED = 5  # unknown categories in warnings

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prompt:
    """What is asked of a title; None where the model chooses. With `most`, each text asks for so many, drawn."""

    category: str | None = None
    keywords: tuple[str, ...] | None = None
    most: int | None = None


@dataclass(frozen=True)
class Ask:
    """So many titles of one prompt; `place` begins a message about it."""

    prompt: Prompt
    n: int
    place: str = ""


@dataclass(frozen=True)
class Asks:
    """All that is asked, in order, as often as it is looked through."""

    all: Callable[[], Iterator[Ask]]

    def __iter__(self) -> Iterator[Ask]:
        return self.all()


def asked(settings: GenerateSettings) -> Asks:
    """What the settings ask for; raises InputError where a file or a title asks for nothing."""
    if path := settings.prompts:
        return Asks(lambda: _from_file(path, settings.n or 1))
    prompt = Prompt(settings.category, keywords(settings.keywords))
    if settings.keywords_from is not None:
        prompt = Prompt(settings.category, _keywords_of(settings.keywords_from), _MOST_OF_A_TITLE)
    return one(prompt, settings.number)


def one(prompt: Prompt, n: int) -> Asks:
    return Asks(lambda: iter([Ask(prompt, n)]))


def each(prompts: Iterable[Prompt]) -> Asks:
    """A title of each prompt."""
    there = tuple(prompts)
    return Asks(lambda: (Ask(prompt, 1) for prompt in there))


def keywords(text: str | None) -> tuple[str, ...] | None:
    """Keywords as the user typed them, between blanks or commas, in the form that encode gives them."""
    if text is None:
        return None
    found = (keyword_rules.normalise(word) for word in text.replace(",", " ").split())
    return tuple(dict.fromkeys(word for word in found if word))


def _keywords_of(title: str) -> tuple[str, ...]:
    [found] = finder(EncodeSettings(input=Path("title")))([title])
    if not found:
        raise InputError(f"--keywords-from: encode finds no keyword in {title!r}; give another title, or --keywords")
    _log.info("--keywords-from: %s", " ".join(found))
    return found


def _from_file(path: Path, n: int) -> Iterator[Ask]:
    with table(path, made_by="--prompts needs a CSV or JSONL file with columns category, keywords, n") as prompts:
        names = [name for name in COLUMNS if name in prompts.columns]
        if not names:
            raise InputError(f"{path}: has no column category, keywords or n; it has {', '.join(prompts.columns)}")
        _refuse_misspelt(path, prompts.columns)
        number = 0
        for number, cells in enumerate(prompts.rows(names), start=1):
            row = dict(zip(names, map(str.strip, cells), strict=True))
            place = f"{path}: row {number}: "
            prompt = Prompt(row.get("category") or None, keywords(row.get("keywords") or None))
            yield Ask(prompt, _count(row.get("n") or str(n), place), place)
        if not number:
            raise InputError(f"{path}: holds no prompt; a row each is needed below the header")


def _refuse_misspelt(path: Path, columns: Sequence[str]) -> None:
    """Other columns may stand in the file, but none that is meant and would be left out."""
    missing = [name for name in COLUMNS if name not in columns]
    for column in columns:
        if column and column not in COLUMNS and (meant := did_you_mean(column, missing)):
            raise InputError(f"{path}: column {column}: is not known{meant}")


def _count(text: str, place: str) -> int:
    if not text.isdecimal() or not int(text):
        raise InputError(f"{place}n must be a whole number from 1, not {text!r}")
    return int(text)


def check(asks: Asks, mark: Mark, blocked: Iterable[str], refuse_too_long: Callable[[Ask], None]) -> int:
    """Look through all that is asked before any of it is made; gives the number of titles.

    Raises UsageError for a prompt that the run can't have, and warns of categories that it has never seen.
    """
    total, unknown, blocked = 0, set[str](), set(blocked)
    for ask in asks:
        total += ask.n
        _refuse_absent(ask, mark)
        refuse_too_long(ask)
        category = keyword_rules.category(ask.prompt.category or "")
        if category in blocked:
            option = f"{ask.place}category" if ask.place else "--category"
            raise UsageError(f"{option} {category}: is on the list of those that --sfw leaves out; pass --no-sfw")
        if category and mark.categories and category not in mark.categories:
            unknown.add(category)
    _warn(sorted(unknown), mark)
    return total


def _refuse_absent(ask: Ask, mark: Mark) -> None:
    for name in ("category", "keywords"):
        if getattr(ask.prompt, name) and mark.sections is not None and name not in mark.sections:
            option = f"{ask.place}{name}" if ask.place else f"--{name}"
            raise UsageError(f"{option}: the records of this run have no {name}; encode its dataset with them")


def _warn(unknown: list[str], mark: Mark) -> None:
    for category in itertools.islice(unknown, _NAMED):
        near = get_close_matches(category, mark.categories, n=3)
        or_else = f"; near it are {', '.join(near)}" if near else ""
        _log.warning("category %s: this run has never seen it%s", category, or_else)
    if len(unknown) > _NAMED:
        _log.warning("and %d categories more that this run has never seen", len(unknown) - _NAMED)
