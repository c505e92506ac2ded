"""Encoded or generated text back to titles, or to whichever sections are asked for."""

import logging
from collections import Counter
from collections.abc import Iterator

from redditgen.errors import InputError, UsageError
from redditgen.output import refuse_existing, write_sidecar
from redditgen.records import records
from redditgen.rows import check_rows_file, json_line, one_line, write_rows
from redditgen.settings import DecodeSettings

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
