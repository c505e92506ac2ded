"""Streams the records of encoded or generated text, each from its start token to its end token.

Files may be of any size. A record may span lines, as in files that other tools wrote. Text between records, such as the
==== lines of gpt-2-simple's samples, is skipped. The first record decides whether the records of a file have sections;
those that differ from it are malformed.
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
_LONGEST = 1 << 26  # characters; longer text without an end token is not a record
_TOKEN = re.compile(f"({re.escape(START_TOKEN)}|{re.escape(END_TOKEN)})")
_SAMPLE_SEPARATOR = re.compile(r"\n={20}\r?(?:\n|\Z)")

_log = logging.getLogger(__name__)


def read_records(path: Path, counts: Counter[str] | None = None, *, partial: bool = False) -> Iterator[Record]:
    """Yield the complete records of a file in order; with `partial` also the unfinished ones, as far as they go.

    Sets in `counts` the numbers of 'records' (complete) and 'partial' ones, and of those left out, which are logged
    too: 'unfinished' (no end token) and 'malformed' ones. Raises MissingError or InputError where the file can't be
    read, and InputError at its end if it held no record.
    """
    with open_text(path, made_by="`redditgen encode` and `redditgen generate` make such files") as file:
        yield from read_records_from(file, path, counts, partial=partial)


def read_records_from(
    file: TextIO, path: Path, counts: Counter[str] | None = None, *, partial: bool = False
) -> Iterator[Record]:
    """Yield the records of an open text file as `read_records` does; messages name it `path`."""
    counts = Counter() if counts is None else counts
    counts.update(records=0, partial=0, unfinished=0, malformed=0)
    has_sections: bool | None = None
    for text, has_end_token in _record_texts(file):
        record = parse_sections(text) if has_end_token else parse_unfinished(text) if partial else None
        if record is None or has_sections not in (None, record.has_sections):
            counts["malformed" if has_end_token else "unfinished"] += 1
            continue
        if has_end_token or record.has_sections:  # a cut record may have lost its delimiters
            has_sections = record.has_sections
        counts["records" if has_end_token else "partial"] += 1
        yield record
    _report_left_out(path, counts)


def _report_left_out(path: Path, counts: Counter[str]) -> None:
    """Log how many records were left out; raises InputError if all were, or if there was none."""
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


def _record_texts(file: TextIO) -> Iterator[tuple[str, bool]]:
    """Yield the text after each start token, and whether an end token follows; '' for text too long to be a record."""
    pieces: list[str] | None = None  # of the current record; None between records
    length = 0
    for text, token in _split_at_tokens(file):
        if pieces is not None:
            pieces.append(text)
            length += len(text)
            if token:
                yield _record_text("".join(pieces), token)
            elif length > _LONGEST:
                yield "", False
                pieces = None
        if token:
            pieces, length = ([], 0) if token == START_TOKEN else (None, 0)
    if pieces is not None:
        yield _record_text("".join(pieces), "")


def _record_text(text: str, token: str) -> tuple[str, bool]:
    """Return a text up to the line that separates samples, and whether it is a complete record.

    `token` is the token after the text, or '' at the end of the file.
    """
    separator = _SAMPLE_SEPARATOR.search(text)
    if token == END_TOKEN and not separator:
        return text, True
    # The line break after an unfinished record belongs to the file, not to the record.
    return text[: separator.start() if separator else None].rstrip("\r\n"), False


def _split_at_tokens(file: TextIO) -> Iterator[tuple[str, str]]:
    """Split a file at its tokens; yield each text with the token after it, or '' where the text continues."""
    rest = ""
    while chunk := file.read(_CHUNK):
        *parts, rest = _TOKEN.split(rest + chunk)
        yield from zip(parts[::2], parts[1::2], strict=True)
        if len(rest) > len(START_TOKEN):
            complete = len(rest) - len(START_TOKEN)  # the remainder may hold a part of a token
            yield rest[:complete], ""
            rest = rest[complete:]
    yield rest, ""
