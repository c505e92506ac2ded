"""Opens text files for reading, as UTF-8 with or without a byte order mark."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from redditgen.errors import InputError, MissingError


@contextmanager
def open_text(path: Path, *, made_by: str) -> Iterator[TextIO]:
    """Open a UTF-8 file, with or without a byte order mark. Line breaks are not converted.

    Raises MissingError where the file does not exist, with `made_by` as the end of its message, and InputError where
    it can't be opened or the block reads bytes that are not UTF-8.
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
                raise not_utf8_error(path, lines) from error


def not_utf8_error(path: Path, lines: Iterable[bytes]) -> InputError:
    """Return an error that names the line and byte where a file is not UTF-8; `lines` are the file's lines."""
    # The decoder's own position counts from the start of its buffer, so the lines are searched once more.
    where = ""
    for number, line in enumerate(lines, start=1):
        try:
            line.decode("utf8")
        except UnicodeDecodeError as error:
            where = f"line {number}, byte {error.start + 1} (0x{line[error.start]:02x}) "
            break
    return InputError(f"{path}: {where}is not UTF-8; save the file as UTF-8")
