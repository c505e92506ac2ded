"""TensorFlow checkpoints (`model.ckpt.index`, `model.ckpt.data-00000-of-00001`) with numpy and no TensorFlow.

Format: tensorflow `core/util/tensor_bundle`. The index is a sorted string table (table.py). The entry '' holds a
BundleHeaderProto; every other maps a tensor's name to a BundleEntryProto (dtype, shape, shard, offset, size, masked
crc32c of its bytes). The data files hold the tensors' bytes, little-endian.

Written files are complete before they take their names, data first, so a crash leaves the previous checkpoint
readable.
"""

import math
import os
import struct
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from redditgen.errors import InputError, MissingError
from redditgen.files.atomic import sync_to_disk, temporary_name
from redditgen.gpt2.formats import sstable

if TYPE_CHECKING:
    import numpy as np

_DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8", 19: "<f2"}  # tensorflow/core/framework/types.proto
_INDEX_LIMIT = 1 << 20  # bytes; GPT-2 1558M's index has 20 kB
_DIMENSIONS = 8  # the most of a tensor; GPT-2's have three
_CHUNK = 1 << 24  # bytes in memory while a checksum is made


@dataclass(frozen=True)
class TensorEntry:
    """Where a tensor's bytes lie: the shard's number, offset and size in bytes, masked crc32c."""

    dtype: str
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int


def read_index(prefix: Path) -> tuple[dict[str, TensorEntry], int]:
    """The entries of `<prefix>.index` by tensor name, and the number of data files.

    Raises MissingError or InputError naming the file.
    """
    path = Path(f"{prefix}.index")
    content = _read_file(path)
    try:
        pairs = dict(sstable.read_entries(content))
        if b"" not in pairs:
            raise ValueError("it has no header")
        header = _message(pairs.pop(b""))
        entries = {name.decode("utf8"): _entry(value) for name, value in pairs.items()}
        return entries, int(header.get(1, [1])[0])
    except (IndexError, KeyError, ValueError, TypeError, struct.error) as error:
        raise InputError(
            f"{path}: is no whole TensorFlow checkpoint index ({error}); copy or download it anew"
        ) from error


def read_matching_index(prefix: Path, shapes: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, TensorEntry], int]:
    """The same, with the tensors that `shapes` names in these shapes; raises InputError naming one that is not."""
    entries, shards = read_index(prefix)
    for name, shape in shapes.items():
        if name not in entries:
            raise InputError(f"{prefix}.index: holds no tensor {name}; is hparams.json another model's?")
        if entries[name].shape != shape:
            stands, wanted = list(entries[name].shape), list(shape)
            raise InputError(f"{prefix}.index: {name} is {stands} but hparams.json asks for {wanted}")
    return entries, shards


def read_tensors(prefix: Path, shapes: Mapping[str, tuple[int, ...]]) -> "dict[str, np.ndarray]":
    """The tensors that `shapes` names, each checked against its shape and its crc32c; others are left alone.

    Raises MissingError for a missing file, and InputError naming the file and the tensor for anything else.
    """
    entries, shards = read_matching_index(prefix, shapes)
    paths = _places(prefix, entries, shards, shapes)
    return {name: _read_tensor(path, name, entries[name]) for name, path in paths.items()}


def verify_checksums(prefix: Path) -> None:
    """Check every tensor's crc32c, with little of it in memory at a time; raises as `read` does."""
    entries, shards = read_index(prefix)
    for name, path in _places(prefix, entries, shards, entries).items():
        for _ in _chunks(path, name, entries[name]):
            pass


def write_checkpoint(prefix: Path, tensors: "Mapping[str, np.ndarray]") -> None:
    """Write float32 tensors as `<prefix>.index` and one data file, each renamed into place when whole."""
    data, index = _data_path(prefix, 0, 1), Path(f"{prefix}.index")
    pairs = [(b"", _header())]
    new_data, new_index = (temporary_name(path) for path in (data, index))
    try:
        with new_data.open("wb") as file:
            for name in sorted(tensors):
                content = tensors[name].astype("<f4", order="C").tobytes()
                entry = TensorEntry(
                    "<f4", tensors[name].shape, 0, file.tell(), len(content), sstable.masked_crc(content)
                )
                pairs.append((name.encode("utf8"), _encoded(entry)))
                file.write(content)
            file.flush()
            os.fsync(file.fileno())
        with new_index.open("wb") as file:
            file.write(sstable.build_table(pairs))
            file.flush()
            os.fsync(file.fileno())
        new_data.replace(data)
        new_index.replace(index)
        sync_to_disk(prefix.parent)
    except OSError as error:
        raise InputError(f"{prefix}: can't be written: {error.strerror or error}") from error
    finally:
        new_data.unlink(missing_ok=True)
        new_index.unlink(missing_ok=True)


def _data_path(prefix: Path, shard: int, shards: int) -> Path:
    return Path(f"{prefix}.data-{shard:05d}-of-{shards:05d}")


def _read_file(path: Path) -> bytes:
    with _reading(path):
        if path.stat().st_size > _INDEX_LIMIT:
            raise InputError(f"{path}: {path.stat().st_size} bytes are too many for a checkpoint index")
        return path.read_bytes()


def _places(prefix: Path, entries: Mapping[str, TensorEntry], shards: int, names: Collection[str]) -> dict[str, Path]:
    """The data file of each tensor, when all are sure to have bytes of their own there.

    Else an index of a few kilobytes could ask for any amount of memory.
    """
    paths = {name: _data_path(prefix, entries[name].shard, shards) for name in names}
    with _reading(prefix):
        lengths = {path: path.stat().st_size for path in set(paths.values())}
    taken: Counter[Path] = Counter()
    for name, path in paths.items():
        if entries[name].offset + entries[name].size > lengths[path]:
            raise InputError(f"{path}: ends before {name} does ({lengths[path]} bytes); copy or download it anew")
        taken[path] += entries[name].size
        if taken[path] > lengths[path]:
            raise InputError(f"{path}: is too small for its tensors ({lengths[path]} bytes); copy or download it anew")
    return paths


def _read_tensor(path: Path, name: str, entry: TensorEntry) -> "np.ndarray":
    import numpy as np

    array = np.empty(entry.shape, entry.dtype)
    content, at = array.reshape(-1).view(np.uint8), 0
    for chunk in _chunks(path, name, entry):
        content[at : at + len(chunk)] = np.frombuffer(chunk, np.uint8)
        at += len(chunk)
    return array


def _chunks(path: Path, name: str, entry: TensorEntry) -> Iterator[bytes]:
    """A tensor's bytes, in parts; behind the last one InputError is raised if they fail the check."""
    import google_crc32c

    crc, left = 0, entry.size
    with _reading(path), path.open("rb") as file:
        file.seek(entry.offset)
        while chunk := file.read(min(left, _CHUNK)):
            crc, left = google_crc32c.extend(crc, chunk), left - len(chunk)
            yield chunk
    if left or sstable.mask_crc(crc) != entry.crc:
        raise InputError(f"{path}: {name} fails its crc32c check, so the file is damaged; copy or download it anew")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """What the system refuses in the block is that a file of the checkpoint, by default `path`, can't be read."""
    try:
        yield
    except FileNotFoundError as error:
        raise MissingError(f"{error.filename or path}: not there, and the checkpoint needs it") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{getattr(error, 'filename', None) or path}: can't be read: {reason}") from error


# --- The two protocol buffers, few enough fields to be read by hand ---


def _message(content: bytes) -> dict[int, list[int | bytes]]:
    """A protocol buffer's fields by number: varints and fixed32 as int, the rest as bytes."""
    fields: dict[int, list[int | bytes]] = {}
    at = 0
    while at < len(content):
        tag, at = sstable.read_varint(content, at)
        value: int | bytes
        match tag & 7:
            case 0:
                value, at = sstable.read_varint(content, at)
            case 2:
                length, at = sstable.read_varint(content, at)
                if at + length > len(content):
                    raise ValueError("a field reaches beyond its message")
                value, at = content[at : at + length], at + length
            case 5:
                value, at = struct.unpack("<I", content[at : at + 4])[0], at + 4
            case wire:
                raise ValueError(f"a field has wire type {wire}")
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _entry(content: bytes) -> TensorEntry:
    fields = _message(content)
    number = {key: int(values[-1]) for key, values in fields.items() if isinstance(values[-1], int)}
    shape = tuple(_dimension(dim) for dim in _message(_bytes(fields.get(2, [b""])[-1])).get(2, []))
    if len(shape) > _DIMENSIONS:
        raise ValueError(f"a tensor has {len(shape)} dimensions")
    if number.get(1) not in _DTYPES:
        raise ValueError(f"a tensor has TensorFlow's type number {number.get(1)}, which no GPT-2 checkpoint holds")
    entry = TensorEntry(
        _DTYPES[number[1]], shape, number.get(3, 0), number.get(4, 0), number.get(5, 0), number.get(6, 0)
    )
    if entry.size != math.prod(shape) * int(entry.dtype[-1]):
        raise ValueError("a tensor's size disagrees with its shape")
    return entry


def _dimension(content: int | bytes) -> int:
    return int(_message(_bytes(content)).get(1, [0])[-1])


def _bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("a field is a number where a message should stand")
    return value


def _header() -> bytes:
    """BundleHeaderProto: num_shards 1, little-endian, written by format version 1."""
    return b"\x08\x01\x1a\x02\x08\x01"


def _encoded(entry: TensorEntry) -> bytes:
    dims = b"".join(
        b"\x12" + sstable.encode_varint(len(dim)) + dim
        for dim in (b"\x08" + sstable.encode_varint(n) for n in entry.shape)
    )
    content = b"\x08\x01\x12" + sstable.encode_varint(len(dims)) + dims
    if entry.offset:
        content += b"\x20" + sstable.encode_varint(entry.offset)
    return content + b"\x28" + sstable.encode_varint(entry.size) + b"\x35" + struct.pack("<I", entry.crc)
