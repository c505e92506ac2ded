"""What users ask of titles: a category and keywords, from the command line, a file, or another title."""

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from redditgen.errors import InputError, UsageError, did_you_mean
from redditgen.files.tables import open_table
from redditgen.gpt2.run_info import RunInfo
from redditgen.settings import GenerateSettings
from redditgen.titles import keywords as keyword_rules
from redditgen.titles.spacy_keywords import keyword_finder

PROMPT_COLUMNS = ("category", "keywords", "n")
_MOST_OF_A_TITLE = 3  # keywords, as many as encode gives a record
_NAMED = 5  # unknown categories in warnings

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prompt:
    """The category and keywords asked of a title; None leaves the choice to the model.

    With `most` each text asks for at most so many of the keywords, drawn at random.
    """

    category: str | None = None
    keywords: tuple[str, ...] | None = None
    most: int | None = None


@dataclass(frozen=True)
class PromptRequest:
    """A prompt and how many titles are wanted of it; messages about it begin with `place`."""

    prompt: Prompt
    n: int
    place: str = ""


@dataclass(frozen=True)
class PromptRequests:
    """All requests of a command, in order; they can be iterated more than once."""

    all: Callable[[], Iterator[PromptRequest]]

    def __iter__(self) -> Iterator[PromptRequest]:
        return self.all()


def requests_from_settings(settings: GenerateSettings) -> PromptRequests:
    """The requests of the settings; raises InputError where a file has no prompt, or a title no keyword."""
    if path := settings.prompts:
        return PromptRequests(lambda: _from_file(path, settings.n or 1))
    prompt = Prompt(settings.category, parse_keywords(settings.keywords))
    if settings.keywords_from is not None:
        prompt = Prompt(settings.category, _keywords_of(settings.keywords_from), _MOST_OF_A_TITLE)
    return single_request(prompt, settings.number)


def single_request(prompt: Prompt, n: int) -> PromptRequests:
    return PromptRequests(lambda: iter([PromptRequest(prompt, n)]))


def one_title_each(prompts: Iterable[Prompt]) -> PromptRequests:
    """One title of each prompt."""
    kept = tuple(prompts)
    return PromptRequests(lambda: (PromptRequest(prompt, 1) for prompt in kept))


def parse_keywords(text: str | None) -> tuple[str, ...] | None:
    """Keywords as a user typed them, separated by blanks or commas, in the form that encode gives keywords."""
    if text is None:
        return None
    found = (keyword_rules.normalise_keyword(word) for word in text.replace(",", " ").split())
    return tuple(dict.fromkeys(word for word in found if word))


def _keywords_of(title: str) -> tuple[str, ...]:
    [found] = keyword_finder()([title])
    if not found:
        raise InputError(f"--keywords-from: encode finds no keyword in {title!r}; give another title, or --keywords")
    _log.info("--keywords-from: %s", " ".join(found))
    return found


def _from_file(path: Path, n: int) -> Iterator[PromptRequest]:
    with open_table(path, made_by="--prompts needs a CSV or JSONL file with columns category, keywords, n") as prompts:
        names = [name for name in PROMPT_COLUMNS if name in prompts.columns]
        if not names:
            raise InputError(f"{path}: has no column category, keywords or n; it has {', '.join(prompts.columns)}")
        _refuse_misspelt(path, prompts.columns)
        number = 0
        for number, cells in enumerate(prompts.rows(names), start=1):
            row = dict(zip(names, map(str.strip, cells), strict=True))
            place = f"{path}: row {number}: "
            prompt = Prompt(row.get("category") or None, parse_keywords(row.get("keywords") or None))
            yield PromptRequest(prompt, _count(row.get("n") or str(n), place), place)
        if not number:
            raise InputError(f"{path}: holds no prompt; a row each is needed below the header")


def _refuse_misspelt(path: Path, columns: Sequence[str]) -> None:
    """Raise InputError for a column whose name is nearly one of ours; any other column is ignored."""
    missing = [name for name in PROMPT_COLUMNS if name not in columns]
    for column in columns:
        if column and column not in PROMPT_COLUMNS and (meant := did_you_mean(column, missing)):
            raise InputError(f"{path}: column {column}: is not known{meant}")


def _count(text: str, place: str) -> int:
    if not text.isdecimal() or not int(text):
        raise InputError(f"{place}n must be a whole number from 1, not {text!r}")
    return int(text)


def check_requests(
    requests: PromptRequests,
    run_info: RunInfo,
    blocked: Iterable[str],
    refuse_too_long: Callable[[PromptRequest], None],
) -> int:
    """Check all requests before any title is drawn, and return the number of titles.

    Raises UsageError for a prompt that the run can't have, and warns of categories that it has never seen.
    """
    total, unknown, blocked = 0, set[str](), set(blocked)
    for request in requests:
        total += request.n
        _refuse_absent(request, run_info)
        refuse_too_long(request)
        category = keyword_rules.normalise_category(request.prompt.category or "")
        if category in blocked:
            option = f"{request.place}category" if request.place else "--category"
            raise UsageError(f"{option} {category}: is on the list of those that --sfw leaves out; pass --no-sfw")
        if category and run_info.categories and category not in run_info.categories:
            unknown.add(category)
    _warn(sorted(unknown), run_info)
    return total


def _refuse_absent(request: PromptRequest, run_info: RunInfo) -> None:
    for name in ("category", "keywords"):
        if getattr(request.prompt, name) and run_info.sections is not None and name not in run_info.sections:
            option = f"{request.place}{name}" if request.place else f"--{name}"
            raise UsageError(f"{option}: the records of this run have no {name}; encode its dataset with them")


def _warn(unknown: list[str], run_info: RunInfo) -> None:
    for category in itertools.islice(unknown, _NAMED):
        near = get_close_matches(category, run_info.categories, n=3)
        or_else = f"; near it are {', '.join(near)}" if near else ""
        _log.warning("category %s: this run has never seen it%s", category, or_else)
    if len(unknown) > _NAMED:
        _log.warning("and %d categories more that this run has never seen", len(unknown) - _NAMED)
