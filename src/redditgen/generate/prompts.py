"""Prompts: the category and keywords that users ask for, on the command line, in a file, or with another title.

A file of prompts is a CSV or JSONL with one prompt a row, and at least one of the columns category, keywords and n, the
number of titles.
"""

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
_MAX_KEYWORDS_OF_TITLE = 3  # of --keywords-from, as many as encode gives a record
_MAX_WARNINGS = 5  # unknown categories that are named in warnings; the rest are only counted

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prompt:
    """The category and keywords that titles are requested with; None leaves the choice to the model.

    With `max_keywords`, the prompt of each text holds at most that many of the keywords, drawn at random.
    """

    category: str | None = None
    keywords: tuple[str, ...] | None = None
    max_keywords: int | None = None


@dataclass(frozen=True)
class PromptRequest:
    """A prompt and how many titles are wanted for it; messages about it begin with `location`, the row of a file."""

    prompt: Prompt
    n: int
    location: str = ""


@dataclass(frozen=True)
class PromptRequests:
    """All requests of a command, in order. Each iteration calls `all`, so they can be iterated more than once."""

    all: Callable[[], Iterator[PromptRequest]]

    def __iter__(self) -> Iterator[PromptRequest]:
        return self.all()


def requests_from_settings(settings: GenerateSettings) -> PromptRequests:
    """Return the requests of the settings; a file of prompts is read anew in each iteration over them.

    Raises InputError where the title of --keywords-from has no keyword. An iteration raises it where the file has no
    prompt, or where one of its rows is wrong.
    """
    if path := settings.prompts:
        return PromptRequests(lambda: _read_requests(path, settings.n or 1))
    prompt = Prompt(settings.category, parse_keywords(settings.keywords))
    if settings.keywords_from is not None:
        prompt = Prompt(settings.category, _keywords_in_title(settings.keywords_from), _MAX_KEYWORDS_OF_TITLE)
    return single_request(prompt, settings.title_count)


def single_request(prompt: Prompt, n: int) -> PromptRequests:
    """Return one request, for `n` titles."""
    return PromptRequests(lambda: iter([PromptRequest(prompt, n)]))


def one_title_each(prompts: Iterable[Prompt]) -> PromptRequests:
    """Return a request for one title for each prompt."""
    all_prompts = tuple(prompts)
    return PromptRequests(lambda: (PromptRequest(prompt, 1) for prompt in all_prompts))


def parse_keywords(text: str | None) -> tuple[str, ...] | None:
    """Split keywords that a user typed at blanks and commas, and normalise each one as encode does; None stays None."""
    if text is None:
        return None
    keywords = (keyword_rules.normalise_keyword(word) for word in text.replace(",", " ").split())
    return tuple(dict.fromkeys(keyword for keyword in keywords if keyword))


def _keywords_in_title(title: str) -> tuple[str, ...]:
    [keywords] = keyword_finder()([title])
    if not keywords:
        raise InputError(f"--keywords-from: encode finds no keyword in {title!r}; give another title, or --keywords")
    _log.info("--keywords-from: %s", " ".join(keywords))
    return keywords


def _read_requests(path: Path, default_n: int) -> Iterator[PromptRequest]:
    with open_table(path, made_by="--prompts needs a CSV or JSONL file with columns category, keywords, n") as prompts:
        names = [name for name in PROMPT_COLUMNS if name in prompts.columns]
        if not names:
            raise InputError(f"{path}: has no column category, keywords or n; it has {', '.join(prompts.columns)}")
        _refuse_misspelt_columns(path, prompts.columns)
        number = 0
        for number, cells in enumerate(prompts.rows(names), start=1):
            row = dict(zip(names, map(str.strip, cells), strict=True))
            place = f"{path}: row {number}: "
            prompt = Prompt(row.get("category") or None, parse_keywords(row.get("keywords") or None))
            yield PromptRequest(prompt, _parse_count(row.get("n") or str(default_n), place), place)
        if not number:
            raise InputError(f"{path}: holds no prompt; a row each is needed below the header")


def _refuse_misspelt_columns(path: Path, columns: Sequence[str]) -> None:
    """Raise InputError for a column whose name is almost one of PROMPT_COLUMNS; any other column is ignored."""
    missing = [name for name in PROMPT_COLUMNS if name not in columns]
    for column in columns:
        if column and column not in PROMPT_COLUMNS and (meant := did_you_mean(column, missing)):
            raise InputError(f"{path}: column {column}: is not known{meant}")


def _parse_count(text: str, place: str) -> int:
    if not text.isdecimal() or not int(text):
        raise InputError(f"{place}n must be a whole number from 1, not {text!r}")
    return int(text)


def check_requests(
    requests: PromptRequests,
    run_info: RunInfo,
    blocked: Iterable[str],
    refuse_too_long: Callable[[PromptRequest], None],
) -> int:
    """Check all requests before any title is drawn, and return the total number of titles.

    Logs a warning for categories that the run was never trained on. Raises UsageError for a prompt with a `blocked`
    category, or with a section that the run's records do not have. `refuse_too_long` raises it for a prompt that leaves
    no room in the model's context.
    """
    total, unknown, blocked = 0, set[str](), set(blocked)
    for request in requests:
        total += request.n
        _refuse_missing_sections(request, run_info)
        refuse_too_long(request)
        category = keyword_rules.normalise_category(request.prompt.category or "")
        if category in blocked:
            option = f"{request.location}category" if request.location else "--category"
            raise UsageError(f"{option} {category}: is on the list of those that --sfw leaves out; pass --no-sfw")
        if category and run_info.categories and category not in run_info.categories:
            unknown.add(category)
    _warn_of_unknown_categories(sorted(unknown), run_info)
    return total


def _refuse_missing_sections(request: PromptRequest, run_info: RunInfo) -> None:
    for name in ("category", "keywords"):
        if getattr(request.prompt, name) and run_info.sections is not None and name not in run_info.sections:
            option = f"{request.location}{name}" if request.location else f"--{name}"
            raise UsageError(f"{option}: the records of this run have no {name}; encode its dataset with them")


def _warn_of_unknown_categories(unknown: list[str], run_info: RunInfo) -> None:
    for category in itertools.islice(unknown, _MAX_WARNINGS):
        similar = get_close_matches(category, run_info.categories, n=3)
        suggestion = f"; near it are {', '.join(similar)}" if similar else ""
        _log.warning("category %s: this run has never seen it%s", category, suggestion)
    if len(unknown) > _MAX_WARNINGS:
        _log.warning("and %d categories more that this run has never seen", len(unknown) - _MAX_WARNINGS)
