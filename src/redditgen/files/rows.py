"""Rows in files: a text file opened for reading, and rows written as txt, CSV or JSONL by the name's suffix."""

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
    """Write `path` in the form that a suffix names; gives the number of rows. None is an empty cell."""
    count = 0
    with path.open("w", encoding="utf8", newline="") as file:
        write = _writer(file, suffix.lower(), columns, delimiter="", has_header=True)
        for row in rows:
            write(row)
            count += 1
    return count


def format_rows(
    rows: Iterable[Row], path: Path, columns: Sequence[str], *, delimiter: str = "", is_first: bool = True
) -> str:
    """Rows as `write_rows` would write them to `path`; those behind others are not the `is_first` ones.

    With a `delimiter`, which stands behind each value of a .txt, line breaks inside values are kept.
    """
    text = io.StringIO(newline="")
    write = _writer(text, path.suffix.lower(), columns, delimiter, has_header=is_first)
    for row in rows:
        write(row)
    return text.getvalue()


class CsvFile:
    """A file for csv.writer, which up to Python 3.12 quotes a line break in a cell only if it can also end a row."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, row: str) -> int:
        return self._file.write(row.removesuffix("\r\n") + "\n")


def _writer(
    file: TextIO, suffix: str, columns: Sequence[str], delimiter: str, *, has_header: bool
) -> Callable[[Row], object]:
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
    return json.dumps({column: row[column] for column in columns}, ensure_ascii=False)


def fold_line_breaks(value: object) -> str:
    """The value as text with each line break, of any kind, folded to a blank."""
    text = "" if value is None else str(value)
    return " ".join(line for line in text.splitlines() if line)
