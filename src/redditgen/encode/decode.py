"""`redditgen decode`: turns encoded or generated text back into titles, or into any sections of the records."""

import logging
from collections import Counter
from collections.abc import Iterator

from redditgen.errors import InputError, UsageError
from redditgen.files.atomic import atomic_write, refuse_existing
from redditgen.files.locks import locked_output
from redditgen.files.rows import check_rows_file, fold_line_breaks, json_line, write_rows
from redditgen.files.sidecar import IGNORED_SETTINGS, find_up_to_date, write_sidecar
from redditgen.runtime.progress import track
from redditgen.settings import DecodeSettings
from redditgen.titles.record_reader import read_records

_log = logging.getLogger(__name__)


def decode(settings: DecodeSettings) -> dict[str, int]:
    """Write the sections asked for to `settings.out`, with a sidecar, and return the counts.

    The counts are `rows`, and those of `read_records`. Raises UsageError where `settings.out` is None or can't hold the
    sections, OutputExists where it exists and may not be replaced, and InputError where no record has such a section.
    """
    if settings.out is None:
        raise UsageError("--out: a file to write is needed here")
    check_rows_file(settings.out, settings.names)
    inputs = [settings.input]
    if settings.skip_existing and (
        sidecar := find_up_to_date(settings.out, settings, inputs=inputs, ignoring=IGNORED_SETTINGS)
    ):
        return dict(sidecar["counts"])
    counts: Counter[str] = Counter()
    with locked_output(settings.out):
        refuse_existing(settings.out, settings.overwrite)
        with atomic_write(settings.out) as temporary:
            counts["rows"] = write_rows(
                temporary,
                track(_rows(settings, counts), str(settings.out), unit="rows"),
                settings.names,
                suffix=settings.out.suffix,
            )
            write_sidecar(settings.out, settings, inputs=inputs, written=temporary, counts=counts)
    unfinished = f" and {counts['partial']} unfinished ones" if counts["partial"] else ""
    _log.info("%s: %d rows of %d records%s", settings.out, counts["rows"], counts["records"], unfinished)
    return dict(counts)


def decode_lines(settings: DecodeSettings) -> Iterator[str]:
    """Yield a line for each record: the section asked for, or a JSON object where several are asked for."""
    for row in _rows(settings, Counter()):
        yield fold_line_breaks(row[settings.names[0]]) if len(settings.names) == 1 else json_line(row, settings.names)


def _rows(settings: DecodeSettings, counts: Counter[str]) -> Iterator[dict[str, str | None]]:
    """Yield a row for each record; records with none of the sections asked for are left out."""
    names, has_rows = settings.names, False
    for record in read_records(settings.input, counts, partial=settings.partial):
        row = {name: getattr(record, name) for name in names}
        if set(row.values()) != {None}:
            has_rows = True
            yield row
    if not has_rows:
        raise InputError(f"{settings.input}: no record has a section {' or '.join(names)} (--sections)")
