"""Records read from encoded or generated text, one after another, from start token to end token.

Files may be of any size, and a record of a foreign one may span lines. Whatever stands between records (the ==== lines
of gpt-2-simple's samples) is passed over. The first record decides whether those of its file have marks.
"""

import logging
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from redditgen.errors import InputError
from redditgen.markup import END, START, Record, parse
from redditgen.rows import reading

_CHUNK = 1 << 16  # characters read at a time
_LONGEST = 1 << 20  # characters; a text that goes on for longer without an end token is not a record
_BETWEEN_SAMPLES = re.compile(r"^={20}\r?$", re.MULTILINE)

_log = logging.getLogger(__name__)


def records(path: Path, counts: Counter[str] | None = None) -> Iterator[Record]:
    """Each whole record of a file; raises InputError at its end if there was none.

    Unfinished and malformed ones are logged, and counted as 'broken' in `counts`; the others there as 'records'.
    """
    with reading(path, made_by="`redditgen encode` and `redditgen generate` make such files") as file:
        yield from records_in(file, path, counts)


def records_in(file: TextIO, path: Path, counts: Counter[str] | None = None) -> Iterator[Record]:
    """The same for text that is open already; messages name it `path`."""
    counts = Counter() if counts is None else counts
    marked: bool | None = None
    for record in _parsed(file):
        if record is not None and marked in (None, record.marked):
            marked = record.marked
            counts["records"] += 1
            yield record
        else:
            counts["broken"] += 1
    if counts["broken"]:
        _log.warning("%s: %d unfinished or malformed records left out", path, counts["broken"])
    if not counts["records"]:
        raise InputError(f"{path}: holds no record; `redditgen encode` makes a file of records from a CSV of titles")


def _parsed(file: TextIO) -> Iterator[Record | None]:
    """Each record in turn, None for one that is unfinished or malformed."""
    for text, ended in _until_end(file):
        _, *started = text.split(START)
        for number, content in enumerate(started, start=1):
            is_whole = ended and number == len(started) and not _BETWEEN_SAMPLES.search(content)
            yield parse(START + content + END) if is_whole else None


def _until_end(file: TextIO) -> Iterator[tuple[str, bool]]:
    """The file cut behind each end token: the text, and whether the token stands there."""
    rest = ""
    while chunk := file.read(_CHUNK):
        *ended, rest = (rest + chunk).split(END)
        for text in ended:
            yield text, True
        if len(rest) > _LONGEST:
            keep = len(rest) - len(START)  # a token may be cut here
            yield rest[:keep], False
            rest = rest[keep:]
    yield rest, False
