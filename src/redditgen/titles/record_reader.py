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
from redditgen.files.text import open_text
from redditgen.titles.record import END_TOKEN, START_TOKEN, Record, parse_sections, parse_unfinished

_CHUNK = 1 << 16  # characters read at a time
_LONGEST = 1 << 26  # characters; a text that goes on for longer without an end token is not a record
_TOKEN = re.compile(f"({re.escape(START_TOKEN)}|{re.escape(END_TOKEN)})")
_BETWEEN_SAMPLES = re.compile(r"\n={20}\r?(?:\n|\Z)")

_log = logging.getLogger(__name__)


def read_records(path: Path, counts: Counter[str] | None = None, *, partial: bool = False) -> Iterator[Record]:
    """Each whole record of a file, and with `partial` the unfinished ones as far as they go, in the file's order.

    Raises InputError at the end if there was none. `counts` grows by 'records', which are whole, and 'partial' ones,
    and by those left out, which are logged too: 'unfinished' (no end token) and 'malformed' ones.
    """
    with open_text(path, made_by="`redditgen encode` and `redditgen generate` make such files") as file:
        yield from read_records_from(file, path, counts, partial=partial)


def read_records_from(
    file: TextIO, path: Path, counts: Counter[str] | None = None, *, partial: bool = False
) -> Iterator[Record]:
    """The same for text that is open already; messages name it `path`."""
    counts = Counter() if counts is None else counts
    counts.update(records=0, partial=0, unfinished=0, malformed=0)
    has_sections: bool | None = None
    for text, ended in _contents(file):
        record = parse_sections(text) if ended else parse_unfinished(text) if partial else None
        if record is None or has_sections not in (None, record.has_sections):
            counts["malformed" if ended else "unfinished"] += 1
            continue
        if ended or record.has_sections:  # what was cut may have lost its marks
            has_sections = record.has_sections
        counts["records" if ended else "partial"] += 1
        yield record
    _report(path, counts)


def _report(path: Path, counts: Counter[str]) -> None:
    """Say what was left out; raises InputError if that is everything."""
    unfinished, malformed = counts["unfinished"], counts["malformed"]
    if counts["records"] or counts["partial"]:
        if unfinished or malformed:
            _log.warning("%s: %d unfinished and %d malformed records left out", path, unfinished, malformed)
        return
    if unfinished:
        raise InputError(
            f"{path}: holds no record that has an end token, and {unfinished} without; "
            "`redditgen decode --partial` reads those as far as they go"
        )
    raise InputError(f"{path}: holds no record; `redditgen encode` makes a file of records from a CSV of titles")


def _contents(file: TextIO) -> Iterator[tuple[str, bool]]:
    """What stands behind each start token, and whether an end token is behind that; '' if it is too long to be one."""
    pieces: list[str] | None = None  # of the record that is being read
    length = 0
    for text, token in _pieces(file):
        if pieces is not None:
            pieces.append(text)
            length += len(text)
            if token:
                yield _content("".join(pieces), token)
            elif length > _LONGEST:
                yield "", False
                pieces = None
        if token:
            pieces, length = ([], 0) if token == START_TOKEN else (None, 0)
    if pieces is not None:
        yield _content("".join(pieces), "")


def _content(text: str, token: str) -> tuple[str, bool]:
    """A text up to the line that separates samples, and whether it is a whole record."""
    separator = _BETWEEN_SAMPLES.search(text)
    if token == END_TOKEN and not separator:
        return text, True
    # The line break behind a record that is cut belongs to the file.
    return text[: separator.start() if separator else None].rstrip("\r\n"), False


def _pieces(file: TextIO) -> Iterator[tuple[str, str]]:
    """The file cut at its tokens: each text with the token behind it, or '' if the text goes on."""
    rest = ""
    while chunk := file.read(_CHUNK):
        *parts, rest = _TOKEN.split(rest + chunk)
        yield from zip(parts[::2], parts[1::2], strict=True)
        if len(rest) > len(START_TOKEN):
            keep = len(rest) - len(START_TOKEN)  # a token may be cut here
            yield rest[:keep], ""
            rest = rest[keep:]
    yield rest, ""
