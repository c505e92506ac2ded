"""Records as JSON, an object of sections a line, as `encode --dynamic` and `decode --out` write them.

Keywords are a list of all those of a title, of which each epoch draws some, or a text of those drawn already.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from redditgen.errors import InputError
from redditgen.files import surrogates
from redditgen.files.text import open_text
from redditgen.titles.keyword_draws import KeywordPool
from redditgen.titles.record import SECTIONS, Record

_MADE_BY = "`redditgen encode --dynamic` makes a JSONL of records from a CSV of titles"


def read_json_records(path: Path) -> Iterator[Record]:
    """Each line's record, Undrawn if its keywords are a list; all lines must be as the first one.

    Raises InputError with the number of a line that is none.
    """
    kind: type[Record] | None = None
    with open_text(path, made_by=_MADE_BY) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                record = _record(line)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{path}, line {number}: {error}") from error
            kind = kind or type(record)
            if record.keywords is not None and type(record) is not kind:
                raise InputError(
                    f"{path}, line {number}: its keywords are {_form(type(record))} and those of the first line "
                    f"{_form(kind)}; put them into two files"
                )
            yield record
    if kind is None:
        raise InputError(f"{path}: is empty; {_MADE_BY}")


def _form(kind: type[Record]) -> str:
    return "a list" if kind is KeywordPool else "no list"


def _record(line: str) -> Record:
    """The record of a line; raises ValueError saying what is wrong with it."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError("is no JSON object of sections")
    there = {name: value for name, value in content.items() if value is not None}
    if unknown := [name for name in there if name not in SECTIONS]:
        raise ValueError(f"{unknown[0]!r} is no section; make records of such rows with: redditgen encode FILE")
    if not there:
        raise ValueError(f"has none of the sections {', '.join(SECTIONS)}")
    keywords = there.pop("keywords", None)
    fields: dict[str, Any] = {name: _text(name, value) for name, value in there.items()}
    if isinstance(keywords, list):
        return KeywordPool(**fields, keywords=" ".join(filter(None, (_word(value) for value in keywords))))
    return Record(**fields, keywords=None if keywords is None else _text("keywords", keywords))


def _word(value: Any) -> str:
    """A keyword; what is between its words becomes a dash, since blanks stand between keywords."""
    return "-".join(_text("a keyword", value).split())


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a text, not {json.dumps(value)[:40]}")
    return surrogates.replace_surrogates(value)
