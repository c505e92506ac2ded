"""Encoded or generated text back to titles, or to whichever sections are asked for.

Records are read one after another, from start token to end token, in files of any size and also where they span lines.
Whatever stands between them (the ==== lines of gpt-2-simple's samples) is passed over.
"""

import logging
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from redditgen.errors import InputError, UsageError
from redditgen.markup import END, START, Record, parse
from redditgen.output import refuse_existing, write_sidecar
from redditgen.rows import check_rows_file, json_line, one_line, reading, write_rows
from redditgen.settings import DecodeSettings

_CHUNK = 1 << 16  # characters read at a time
_LONGEST = 1 << 20  # characters; a text that goes on for longer without an end token is not a record
_BETWEEN_SAMPLES = re.compile(r"^={20}\r?$", re.MULTILINE)

_log = logging.getLogger(__name__)


def decode(settings: DecodeSettings) -> dict[str, int]:
    """Write the asked sections to `settings.out` and give the counts: records, rows, broken."""
    if settings.out is None:
        raise UsageError("--out: a file to write is needed here")
    check_rows_file(settings.out, settings.names)
    refuse_existing(settings.out, settings.overwrite)
    counts: Counter[str] = Counter(records=0, broken=0)
    counts["rows"] = write_rows(settings.out, _rows(settings, counts), settings.names)
    write_sidecar(settings.out, settings, inputs=[settings.input], counts=counts)
    _log.info("%s: %d rows of %d records", settings.out, counts["rows"], counts["records"])
    return dict(counts)


def lines(settings: DecodeSettings) -> Iterator[str]:
    """The asked section, a line each; more than one section come as JSON, an object a line."""
    for row in _rows(settings, Counter()):
        yield one_line(row[settings.names[0]]) if len(settings.names) == 1 else json_line(row, settings.names)


def records(path: Path, counts: Counter[str] | None = None) -> Iterator[Record]:
    """Each whole record of a file; raises InputError at its end if there was none.

    Unfinished and malformed ones are logged, and counted as 'broken' in `counts`; the others there as 'records'.
    """
    counts = Counter() if counts is None else counts
    with reading(path, made_by="`redditgen encode` and `redditgen generate` make such files") as file:
        for record in _parsed(file):
            counts["broken" if record is None else "records"] += 1
            if record is not None:
                yield record
    if counts["broken"]:
        _log.warning("%s: %d unfinished or malformed records left out", path, counts["broken"])
    if not counts["records"]:
        raise InputError(f"{path}: holds no record, that is no text between {START} and {END} with a section in it")


def _rows(settings: DecodeSettings, counts: Counter[str]) -> Iterator[dict[str, str | None]]:
    """A row a record; records with none of the asked sections are left out."""
    found = False
    for record in records(settings.input, counts):
        row = {name: getattr(record, name) for name in settings.names}
        if any(value is not None for value in row.values()):
            found = True
            yield row
    if not found:
        raise InputError(f"{settings.input}: no record has a section {' or '.join(settings.names)} (--sections)")


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
