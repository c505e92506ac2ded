"""The lines of a zstd file (RFC 8878), some megabytes at a time: any window up to 2 GiB, any number of frames.

zstandard's stream readers take a file that is cut off for one that ends; its decompression objects tell.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from redditgen.errors import InputError
from redditgen.runtime.progress import Progress

if TYPE_CHECKING:
    from zstandard import ZstdDecompressionObj

MB = 10**6  # bytes

_WINDOW = 2**31  # bytes; the largest that libzstd reads
_HEADER = 18  # bytes; the longest that a frame can have
# Decompressed at once: zstd packs at most 128 KiB into 4 bytes, so no more than 64 MiB come out of this many.
_AT_ONCE = 2048
_LINES = 16 * MB
_LONGEST_LINE = 64 * MB


def window_size(path: Path) -> int:
    """How many bytes of memory it takes to read the file's first frame.

    Raises InputError where the file is no zstd file, or one that can't be read because the window is too large.
    """
    import zstandard

    with path.open("rb") as file:
        header = file.read(_HEADER)
    if not header:
        raise InputError(f"{path}: empty; download it again")
    try:
        size = zstandard.get_frame_parameters(header).window_size
    except zstandard.ZstdError as error:
        if "not enough data" in str(error):
            raise _cut(path) from error
        raise InputError(f"{path}: not a zstd file; monthly dumps are, and have names like RS_2019-08.zst") from error
    if size > _WINDOW:
        raise InputError(
            f"{path}: has a window of {size / MB:.0f} MB, and zstd reads {_WINDOW / MB:.0f} MB at most; "
            "get the dump from elsewhere, or in another form"
        )
    return size


def read_blocks(path: Path, progress: Progress) -> Iterator[bytes]:
    """Whole lines, about 16 MB of them at a time, cut in the same places every time; `progress` counts MB of the file.

    Raises InputError where the file can't be read to its end.
    """
    held: list[bytes] = []
    length = 0
    for piece in _decompressed(path, progress):
        end = piece.rfind(b"\n") + 1
        if end and length + end >= _LINES:
            yield b"".join((*held, piece[:end]))
            held, length = [], 0
            piece = piece[end:]
        held.append(piece)
        length += len(piece)
        if length > _LONGEST_LINE:
            raise InputError(f"{path}: {length / MB:.0f} MB without a line's end; NDJSON has one post a line")
    if length:
        yield b"".join(held)


def _decompressed(path: Path, progress: Progress) -> Iterator[bytes]:
    import zstandard

    done = 0
    frames = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
    frame: ZstdDecompressionObj | None = None
    try:
        for piece in _pieces(path, progress):
            done += len(piece)
            while piece:
                frame = frame or frames.decompressobj()
                yield frame.decompress(piece)
                piece = b""
                if frame.eof:
                    piece, frame = frame.unused_data, None
    except zstandard.ZstdError as error:
        raise _unreadable(path, error, done) from error
    if frame:
        raise _cut(path)


def _pieces(path: Path, progress: Progress) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while megabyte := file.read(MB):
                yield from (megabyte[start : start + _AT_ONCE] for start in range(0, len(megabyte), _AT_ONCE))
                progress.update(1)
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror or error}") from error


def _cut(path: Path) -> InputError:
    return InputError(
        f"{path}: ends in the middle of a zstd frame: the download is incomplete; finish it or start anew"
    )


def _unreadable(path: Path, error: Exception, done: int) -> InputError:
    # libzstd's words stand behind zstandard's: "zstd decompressor error: Data corruption detected".
    words = str(error).rpartition("error: ")[2] or str(error)
    if "not enough memory" in words:
        return InputError(f"{path}: not enough memory for its window; close other programs and run the same command")
    return InputError(f"{path}: damaged after about {done / MB:.0f} MB ({words}); download it again")
