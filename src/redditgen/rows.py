"""Rows in files: a text file opened for reading, and rows written as txt, CSV or JSONL by the name's suffix."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from redditgen.errors import InputError, MissingError, UsageError

SUFFIXES = (".txt", ".csv", ".jsonl")

Row = Mapping[str, object]


@contextmanager
def reading(path: Path, *, made_by: str) -> Iterator[TextIO]:
    """Open UTF-8 text, with or without a byte order mark; whatever can't be read in the block becomes an InputError.

    Line breaks are left as they are. `made_by` ends the message about a file that is not there.
    """
    try:
        file = path.open(encoding="utf-8-sig", newline="")
    except FileNotFoundError as error:
        raise MissingError(f"{path}: no such file; {made_by}") from error
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror or error}") from error
    with file:
        try:
            yield file
        except UnicodeDecodeError as error:
            with path.open("rb") as lines:
                raise not_utf8(path, lines) from error


def not_utf8(path: Path, lines: Iterable[bytes]) -> InputError:
    """Where a file is not what it should be, of which the lines are given."""
    # The decoder's own position counts from the start of its buffer, so the lines are looked through once more.
    where = ""
    for number, line in enumerate(lines, start=1):
        try:
            line.decode("utf8")
        except UnicodeDecodeError as error:
            where = f"line {number}, byte {error.start + 1} (0x{line[error.start]:02x}) "
            break
    return InputError(f"{path}: {where}is not UTF-8; save the file as UTF-8")


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


def rows_text(
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


class Lines:
    """A file for csv.writer, which up to Python 3.12 quotes a line break in a cell only if it can also end a row."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, row: str) -> int:
        return self._file.write(row.removesuffix("\r\n") + "\n")


def _writer(
    file: TextIO, suffix: str, columns: Sequence[str], delimiter: str, *, has_header: bool
) -> Callable[[Row], object]:
    if suffix == ".csv":
        table = csv.writer(Lines(file), lineterminator="\r\n")
        if has_header:
            table.writerow(columns)
        return lambda row: table.writerow([row[column] for column in columns])
    if suffix == ".jsonl":
        return lambda row: file.write(json_line(row, columns) + "\n")
    if delimiter:
        return lambda row: file.write(f"{row[columns[0]]}\n{delimiter}")
    return lambda row: file.write(one_line(row[columns[0]]) + "\n")


def json_line(row: Row, columns: Sequence[str]) -> str:
    return json.dumps({column: row[column] for column in columns}, ensure_ascii=False)


def one_line(value: object) -> str:
    """The value as text with each line break, of any kind, folded to a blank."""
    text = "" if value is None else str(value)
    return " ".join(line for line in text.splitlines() if line)
