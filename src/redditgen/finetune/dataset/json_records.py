"""Reads records from JSONL, an object of sections a line, as `encode --dynamic` and `decode --out` write it.

`keywords` is a list of all keywords of the title, of which each epoch draws some, or a string of keywords that were
drawn already.
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
    """Yield the record of each line, a KeywordPool where its keywords are a list. All lines must be alike in this.

    Raises InputError with the number of a line that is no such record, or where the file has no record.
    """
    first_type: type[Record] | None = None
    with open_text(path, made_by=_MADE_BY) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                record = _record(line)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{path}, line {number}: {error}") from error
            first_type = first_type or type(record)
            if record.keywords is not None and type(record) is not first_type:
                raise InputError(
                    f"{path}, line {number}: its keywords are {_list_or_not(type(record))} and those of the first line "
                    f"{_list_or_not(first_type)}; put them into two files"
                )
            yield record
    if first_type is None:
        raise InputError(f"{path}: is empty; {_MADE_BY}")


def _list_or_not(record_type: type[Record]) -> str:
    return "a list" if record_type is KeywordPool else "no list"


def _record(line: str) -> Record:
    """Return the record of a line; raises ValueError, with what is wrong with it, where it is none."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError("is no JSON object of sections")
    present = {name: value for name, value in content.items() if value is not None}
    if unknown := [name for name in present if name not in SECTIONS]:
        raise ValueError(f"{unknown[0]!r} is no section; make records of such rows with: redditgen encode FILE")
    if not present:
        raise ValueError(f"has none of the sections {', '.join(SECTIONS)}")
    keywords = present.pop("keywords", None)
    fields: dict[str, Any] = {name: _text(name, value) for name, value in present.items()}
    if isinstance(keywords, list):
        return KeywordPool(**fields, keywords=" ".join(filter(None, (_keyword(value) for value in keywords))))
    return Record(**fields, keywords=None if keywords is None else _text("keywords", keywords))


def _keyword(value: Any) -> str:
    """Return a keyword with dashes in place of its blanks, since blanks separate keywords."""
    return "-".join(_text("a keyword", value).split())


def _text(name: str, value: Any) -> str:
    """Return a string with half surrogate pairs replaced; raises ValueError for another value."""
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a text, not {json.dumps(value)[:40]}")
    return surrogates.replace_surrogates(value)
