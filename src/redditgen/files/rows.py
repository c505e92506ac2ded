"""Writes rows as plain text, CSV or JSON lines, chosen by the suffix of the file's name: .txt, .csv or .jsonl."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TextIO

from redditgen.errors import UsageError

SUFFIXES = (".txt", ".csv", ".jsonl")

Row = Mapping[str, object]


def check_rows_file(path: Path, columns: Sequence[str]) -> None:
    """Raise UsageError unless `write_rows` can write these columns to a file of this name."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"{path}: unknown kind of file; the name must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
        )
    if path.suffix.lower() == ".txt" and len(columns) != 1:
        raise UsageError(f"{path}: a .txt holds one column, not {', '.join(columns)}; use .csv or .jsonl")


def write_rows(path: Path, rows: Iterable[Row], columns: Sequence[str], *, suffix: str) -> int:
    """Write rows to `path` in the format of `suffix`; return the number of rows. None is written as an empty cell."""
    count = 0
    with path.open("w", encoding="utf8", newline="") as file:
        write = _row_writer(file, suffix.lower(), columns, delimiter="", has_header=True)
        for row in rows:
            write(row)
            count += 1
    return count


def format_rows(
    rows: Iterable[Row], path: Path, columns: Sequence[str], *, delimiter: str = "", is_first: bool = True
) -> str:
    """Return rows as the text that `write_rows` would write to `path`.

    `is_first` says that no rows come before these, so that a CSV needs its header. A `delimiter` is added after each
    value of a .txt; line breaks in its values are then kept.
    """
    text = io.StringIO(newline="")
    write = _row_writer(text, path.suffix.lower(), columns, delimiter, has_header=is_first)
    for row in rows:
        write(row)
    return text.getvalue()


class CsvFile:
    r"""A file for csv.writer that ends rows with \n.

    Up to Python 3.12, csv.writer quotes only those line breaks in cells that are part of its line terminator. So it is
    given \r\n as terminator, of which this class removes the \r.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, row: str) -> int:
        return self._file.write(row.removesuffix("\r\n") + "\n")


def _row_writer(
    file: TextIO, suffix: str, columns: Sequence[str], delimiter: str, *, has_header: bool
) -> Callable[[Row], object]:
    """Return a function that writes a row to a file in the format of `suffix`; writes the header of a CSV."""
    if suffix == ".csv":
        table = csv.writer(CsvFile(file), lineterminator="\r\n")
        if has_header:
            table.writerow(columns)
        return lambda row: table.writerow([row[column] for column in columns])
    if suffix == ".jsonl":
        return lambda row: file.write(json_line(row, columns) + "\n")
    if delimiter:
        return lambda row: file.write(f"{row[columns[0]]}\n{delimiter}")
    return lambda row: file.write(fold_line_breaks(row[columns[0]]) + "\n")


def json_line(row: Row, columns: Sequence[str]) -> str:
    """Return the columns of a row as a JSON object on one line, without the line break."""
    return json.dumps({column: row[column] for column in columns}, ensure_ascii=False)


def fold_line_breaks(value: object) -> str:
    """Return a value as one line of text, '' for None: its lines, apart from empty ones, joined by blanks."""
    text = "" if value is None else str(value)
    return " ".join(line for line in text.splitlines() if line)
