"""Text, JSON and NumPy's arrays of files that anyone may have made: their sizes are looked at before they are read.

What is wrong with a file is an OSError or a ValueError, which the reader makes an error with the file's name of.
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

# Deflate makes a thousandth of zeros; tokens, the most regular arrays there are here, become an eighth.
_RATIO = 100
_FLOOR = 64 << 20  # bytes; an archive may unpack to as many, however small it is
# What NumPy and zipfile raise for a file that isn't whole; some mistake it for one that is encrypted.
_NOT_WHOLE = (
    *(AttributeError, EOFError, KeyError, MemoryError, OverflowError, RecursionError, RuntimeError, SyntaxError),
    *(TokenError, TypeError, zipfile.BadZipFile, zlib.error),
)


def check_size(path: Path, most: int) -> None:
    """Raise OSError or ValueError unless it is a plain file, or a folder, of at most so many bytes."""
    status = path.stat()
    if status.st_size > most:
        raise ValueError(f"has {status.st_size} bytes, more than the {most} that it may have")
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):  # reading a pipe would wait for ever
        raise ValueError("is no plain file")


def read_text(path: Path, most: int) -> str:
    """The text of a plain file of at most so many bytes, in UTF-8."""
    check_size(path, most)
    try:
        return path.read_text(encoding="utf8")
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start + 1} (0x{error.object[error.start]:02x}) is not UTF-8") from error


def read_json(path: Path, most: int) -> Any:
    """What a plain file of at most so many bytes holds as JSON."""
    return parse_json(read_text(path, most))


def parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("has too many brackets in each other") from error


def read_arrays(file: BinaryIO) -> "dict[str, np.ndarray]":
    """The arrays of a .npz by name, none of which holds more than stands in the archive; pickled ones are refused."""
    try:
        with zipfile.ZipFile(file) as archive:
            return dict(_arrays(archive, file.seek(0, 2)))
    except _NOT_WHOLE as error:
        raise ValueError(f"no whole zip archive of arrays: {str(error) or type(error).__name__}") from error


def _arrays(archive: zipfile.ZipFile, size: int) -> "Iterator[tuple[str, np.ndarray]]":
    import numpy as np

    members = archive.infolist()
    unpacked = sum(member.file_size for member in members)
    if unpacked > max(_FLOOR, _RATIO * size):
        raise ValueError(f"its {size} bytes unpack to {unpacked}, as no arrays of ours do")
    for member in members:
        with archive.open(member) as packed:
            _check_header(packed, member.file_size)
        with archive.open(member) as packed:
            yield member.filename.removesuffix(".npy"), np.lib.format.read_array(packed, allow_pickle=False)


def _check_header(file: IO[bytes], size: int) -> None:
    """Raise ValueError unless the array takes just the bytes that are there."""
    from numpy.lib import format as npy

    version = npy.read_magic(file)
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"an array has version {version}")
    shape, _, kind = read(file)
    if kind.hasobject:
        raise ValueError("an array holds pickled objects, which may do harm; they are not read")
    if min(shape, default=0) < 0 or math.prod(shape) * kind.itemsize != size - file.tell():
        raise ValueError("an array's shape disagrees with its size")
