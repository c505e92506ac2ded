"""Reads the lines of a zstd file (RFC 8878), about 16 MB at a time, with windows up to 2 GiB and any number of frames.

It uses zstandard's decompression objects, since its stream readers do not report that a file is truncated.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from redditgen.errors import InputError
from redditgen.runtime.progress import Progress

if TYPE_CHECKING:
    from zstandard import ZstdDecompressionObj

MB = 10**6  # bytes

_MAX_WINDOW = 2**31  # bytes; libzstd reads no larger windows
_MAX_HEADER = 18  # bytes; the longest header of a frame
# Bytes decompressed at once: zstd packs at most 128 KiB into 4 bytes, so at most 64 MiB come out of this many.
_INPUT_CHUNK = 2048
_BLOCK_SIZE = 16 * MB  # bytes of whole lines in a block, at least
_MAX_LINE = 64 * MB


def window_size(path: Path) -> int:
    """Return the window of the file's first frame, the bytes of memory that it takes to read it.

    Raises InputError where the file is not a zstd file, or its window is too large for libzstd.
    """
    import zstandard

    with path.open("rb") as file:
        header = file.read(_MAX_HEADER)
    if not header:
        raise InputError(f"{path}: empty; download it again")
    try:
        size = zstandard.get_frame_parameters(header).window_size
    except zstandard.ZstdError as error:
        if "not enough data" in str(error):
            raise _truncated_error(path) from error
        raise InputError(f"{path}: not a zstd file; monthly dumps are, and have names like RS_2019-08.zst") from error
    if size > _MAX_WINDOW:
        raise InputError(
            f"{path}: has a window of {size / MB:.0f} MB, and zstd reads {_MAX_WINDOW / MB:.0f} MB at most; "
            "get the dump from elsewhere, or in another form"
        )
    return size


def read_blocks(path: Path, progress: Progress) -> Iterator[bytes]:
    """Yield blocks of whole lines, of about 16 MB each; a file is divided at the same places every time.

    `progress` counts the MB read of the file. Raises InputError where the file can't be read to its end.
    """
    pending: list[bytes] = []
    length = 0
    for piece in _decompress(path, progress):
        end = piece.rfind(b"\n") + 1
        if end and length + end >= _BLOCK_SIZE:
            yield b"".join((*pending, piece[:end]))
            pending, length = [], 0
            piece = piece[end:]
        pending.append(piece)
        length += len(piece)
        if length > _MAX_LINE:
            raise InputError(f"{path}: {length / MB:.0f} MB without a line's end; NDJSON has one post a line")
    if length:
        yield b"".join(pending)


def _decompress(path: Path, progress: Progress) -> Iterator[bytes]:
    import zstandard

    consumed = 0
    decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
    frame: ZstdDecompressionObj | None = None
    try:
        for chunk in _read_chunks(path, progress):
            consumed += len(chunk)
            while chunk:
                frame = frame or decompressor.decompressobj()
                yield frame.decompress(chunk)
                chunk = b""
                if frame.eof:
                    chunk, frame = frame.unused_data, None
    except zstandard.ZstdError as error:
        raise _damaged_error(path, error, consumed) from error
    if frame:
        raise _truncated_error(path)


def _read_chunks(path: Path, progress: Progress) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while megabyte := file.read(MB):
                yield from (megabyte[start : start + _INPUT_CHUNK] for start in range(0, len(megabyte), _INPUT_CHUNK))
                progress.update(1)
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror or error}") from error


def _truncated_error(path: Path) -> InputError:
    return InputError(
        f"{path}: ends in the middle of a zstd frame: the download is incomplete; finish it or start anew"
    )


def _damaged_error(path: Path, error: Exception, consumed: int) -> InputError:
    # libzstd's message follows zstandard's: "zstd decompressor error: Data corruption detected".
    cause = str(error).rpartition("error: ")[2] or str(error)
    if "not enough memory" in cause:
        return InputError(f"{path}: not enough memory for its window; close other programs and run the same command")
    return InputError(f"{path}: damaged after about {consumed / MB:.0f} MB ({cause}); download it again")
