"""Reads text, JSON and NumPy arrays from files of unknown origin.

Sizes are checked before anything is read, so that a small file can't exhaust the memory, and pickled objects are
refused. A file that can't be read or is invalid raises OSError or ValueError, without the file's name in the message;
callers convert these to errors that name the file.
"""

import json
import math
import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from tokenize import TokenError
from typing import IO, TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    import numpy as np

# The most that an archive may expand. Deflate shrinks zeros to a thousandth, and token arrays, the most compressible
# arrays that redditgen writes, to an eighth.
_MAX_EXPANSION = 100
_ALWAYS_ALLOWED = 64 << 20  # bytes that any archive may expand to, however small it is
# Errors that NumPy and zipfile raise for a broken archive. RuntimeError is among them because zipfile takes some broken
# archives for encrypted ones.
_BROKEN_ARCHIVE_ERRORS = (
    *(AttributeError, EOFError, KeyError, MemoryError, OverflowError, RecursionError, RuntimeError, SyntaxError),
    *(TokenError, TypeError, zipfile.BadZipFile, zlib.error),
)


def check_size(path: Path, max_bytes: int) -> None:
    """Raise OSError or ValueError unless `path` is a regular file of at most `max_bytes` bytes, or a folder."""
    status = path.stat()
    if status.st_size > max_bytes:
        raise ValueError(f"has {status.st_size} bytes, more than the {max_bytes} that it may have")
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):  # reading a pipe could block forever
        raise ValueError("is no plain file")


def read_text(path: Path, max_bytes: int) -> str:
    """Return the text of a regular UTF-8 file of at most `max_bytes`. Raises OSError or ValueError for any other."""
    check_size(path, max_bytes)
    try:
        return path.read_text(encoding="utf8")
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start + 1} (0x{error.object[error.start]:02x}) is not UTF-8") from error


def read_json(path: Path, max_bytes: int) -> Any:
    """Return the JSON value in a regular file of at most `max_bytes`. Raises OSError or ValueError for any other."""
    return parse_json(read_text(path, max_bytes))


def parse_json(text: str) -> Any:
    """Parse JSON. Raises ValueError where the text is invalid or nested too deep."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("has too many brackets in each other") from error


def read_arrays(file: BinaryIO) -> "dict[str, np.ndarray]":
    """Return the arrays of an .npz file by name.

    Raises ValueError for a broken archive, one that expands too much, an array whose shape disagrees with its size in
    the archive, or pickled objects.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            return dict(_read_members(archive, file.seek(0, 2)))
    except _BROKEN_ARCHIVE_ERRORS as error:
        raise ValueError(f"no whole zip archive of arrays: {str(error) or type(error).__name__}") from error


def _read_members(archive: zipfile.ZipFile, size: int) -> "Iterator[tuple[str, np.ndarray]]":
    import numpy as np

    members = archive.infolist()
    expanded = sum(member.file_size for member in members)
    if expanded > max(_ALWAYS_ALLOWED, _MAX_EXPANSION * size):
        raise ValueError(f"its {size} bytes unpack to {expanded}, as no arrays of ours do")
    for member in members:
        with archive.open(member) as member_file:
            _check_header(member_file, member.file_size)
        with archive.open(member) as member_file:
            yield member.filename.removesuffix(".npy"), np.lib.format.read_array(member_file, allow_pickle=False)


def _check_header(file: IO[bytes], size: int) -> None:
    """Raise ValueError unless the array that an .npy header describes has the size of the rest of the file.

    `size` is the size in bytes of the uncompressed .npy file.
    """
    from numpy.lib import format as npy

    version = npy.read_magic(file)
    read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read_header is None:
        raise ValueError(f"an array has version {version}")
    shape, _, dtype = read_header(file)
    if dtype.hasobject:
        raise ValueError("an array holds pickled objects, which may do harm; they are not read")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != size - file.tell():
        raise ValueError("an array's shape disagrees with its size")
