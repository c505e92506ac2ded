"""Reads and writes TensorFlow checkpoints with NumPy, without TensorFlow.

The format is that of tensorflow `core/util/tensor_bundle`:

    PREFIX.index                  a sorted string table (sstable.py), whose values are protocol buffers:
        key ''                        BundleHeaderProto: 1 num_shards, 2 endianness, 3 version
        key = a tensor's name         BundleEntryProto: 1 dtype, 2 shape, 3 shard_id, 4 offset, 5 size in bytes,
                                      6 masked crc32c of the tensor's bytes (fixed32)
    PREFIX.data-00000-of-00001    shard 0 of 1: the tensors' bytes, little-endian, in row-major order

In a shape (TensorShapeProto) field 2 is repeated, once per dimension, and holds the dimension's size as its field 1.

Both files are written under temporary names and synced to the disk before they are renamed, the data first. So a crash
leaves the previous checkpoint readable. Every tensor that is read is checked against its crc32c. Memory: the tensors
read, and the bytes of one tensor where they are written.
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
_MAX_INDEX_BYTES = 1 << 20  # the index of GPT-2 1558M has 20 kB
_MAX_DIMENSIONS = 8  # of a tensor; GPT-2's have three at most
_CHUNK = 1 << 24  # bytes that are read at a time


@dataclass(frozen=True)
class TensorEntry:
    """The entry of a tensor in the index.

    `dtype` is NumPy's name of the type, `shard` the number of the data file; `offset` and `size` are in bytes; `crc` is
    the masked crc32c of the tensor's bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int


def read_index(prefix: Path) -> tuple[dict[str, TensorEntry], int]:
    """Return the entries of `<prefix>.index` by tensor name, and the number of data files.

    Raises MissingError or InputError, which name the file.
    """
    path = Path(f"{prefix}.index")
    content = _read_index_file(path)
    try:
        pairs = dict(sstable.read_entries(content))
        if b"" not in pairs:
            raise ValueError("it has no header")
        header = _parse_message(pairs.pop(b""))
        entries = {name.decode("utf8"): _parse_entry(value) for name, value in pairs.items()}
        return entries, int(header.get(1, [1])[0])
    except (IndexError, KeyError, ValueError, TypeError, struct.error) as error:
        raise InputError(
            f"{path}: is no whole TensorFlow checkpoint index ({error}); copy or download it anew"
        ) from error


def read_matching_index(prefix: Path, shapes: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, TensorEntry], int]:
    """Read the index as `read_index` does, and check that it has every tensor in `shapes`, in the shape given there.

    Raises MissingError where there is no index, and InputError, which names the tensor, where one is missing or differs
    in shape.
    """
    entries, shards = read_index(prefix)
    for name, shape in shapes.items():
        if name not in entries:
            raise InputError(f"{prefix}.index: holds no tensor {name}; is hparams.json another model's?")
        if entries[name].shape != shape:
            actual, wanted = list(entries[name].shape), list(shape)
            raise InputError(f"{prefix}.index: {name} is {actual} but hparams.json asks for {wanted}")
    return entries, shards


def read_tensors(prefix: Path, shapes: Mapping[str, tuple[int, ...]]) -> "dict[str, np.ndarray]":
    """Read the tensors in `shapes`, each checked against its shape there and its crc32c; others are not read.

    Raises MissingError where a file is missing, and InputError, which names the file and the tensor, where one is
    missing, damaged or differs in shape.
    """
    entries, shards = read_matching_index(prefix, shapes)
    paths = _data_files(prefix, entries, shards, shapes)
    return {name: _read_tensor(path, name, entries[name]) for name, path in paths.items()}


def verify_checksums(prefix: Path) -> None:
    """Check the crc32c of every tensor, of which 16 MiB are in memory at a time.

    Raises MissingError where a file is missing, and InputError, which names the file and the tensor, where one is
    damaged.
    """
    entries, shards = read_index(prefix)
    for name, path in _data_files(prefix, entries, shards, entries).items():
        for _ in _chunks(path, name, entries[name]):
            pass


def write_checkpoint(prefix: Path, tensors: "Mapping[str, np.ndarray]") -> None:
    """Write tensors as float32 into `<prefix>.index` and one data file, both atomically.

    Raises InputError where they can't be written.
    """
    data, index = _data_path(prefix, 0, 1), Path(f"{prefix}.index")
    pairs = [(b"", _header())]
    temporary_data, temporary_index = (temporary_name(path) for path in (data, index))
    try:
        with temporary_data.open("wb") as file:
            for name in sorted(tensors):
                content = tensors[name].astype("<f4", order="C").tobytes()
                entry = TensorEntry(
                    "<f4", tensors[name].shape, 0, file.tell(), len(content), sstable.masked_crc(content)
                )
                pairs.append((name.encode("utf8"), _encoded(entry)))
                file.write(content)
            file.flush()
            os.fsync(file.fileno())
        with temporary_index.open("wb") as file:
            file.write(sstable.build_table(pairs))
            file.flush()
            os.fsync(file.fileno())
        temporary_data.replace(data)
        temporary_index.replace(index)
        sync_to_disk(prefix.parent)
    except OSError as error:
        raise InputError(f"{prefix}: can't be written: {error.strerror or error}") from error
    finally:
        temporary_data.unlink(missing_ok=True)
        temporary_index.unlink(missing_ok=True)


def _data_path(prefix: Path, shard: int, shards: int) -> Path:
    return Path(f"{prefix}.data-{shard:05d}-of-{shards:05d}")


def _read_index_file(path: Path) -> bytes:
    with _read_errors(path):
        if path.stat().st_size > _MAX_INDEX_BYTES:
            raise InputError(f"{path}: {path.stat().st_size} bytes are too many for a checkpoint index")
        return path.read_bytes()


def _data_files(
    prefix: Path, entries: Mapping[str, TensorEntry], shards: int, names: Collection[str]
) -> dict[str, Path]:
    """Return the data file of each tensor in `names`, after a check that the files are as large as the tensors in them.

    Without this check an index of a few kilobytes could ask for any amount of memory. Raises MissingError or
    InputError.
    """
    paths = {name: _data_path(prefix, entries[name].shard, shards) for name in names}
    with _read_errors(prefix):
        lengths = {path: path.stat().st_size for path in set(paths.values())}
    used: Counter[Path] = Counter()
    for name, path in paths.items():
        if entries[name].offset + entries[name].size > lengths[path]:
            raise InputError(f"{path}: ends before {name} does ({lengths[path]} bytes); copy or download it anew")
        used[path] += entries[name].size
        if used[path] > lengths[path]:
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
    """Yield a tensor's bytes in chunks; after the last one, raise InputError where they don't match the checksum."""
    import google_crc32c

    crc, remaining = 0, entry.size
    with _read_errors(path), path.open("rb") as file:
        file.seek(entry.offset)
        while chunk := file.read(min(remaining, _CHUNK)):
            crc, remaining = google_crc32c.extend(crc, chunk), remaining - len(chunk)
            yield chunk
    if remaining or sstable.mask_crc(crc) != entry.crc:
        raise InputError(f"{path}: {name} fails its crc32c check, so the file is damaged; copy or download it anew")


@contextmanager
def _read_errors(path: Path) -> Iterator[None]:
    """Turn OSError and ValueError in the block into MissingError or InputError, which name the file.

    The file is the one that the system's error names, else `path`.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise MissingError(f"{error.filename or path}: not there, and the checkpoint needs it") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{getattr(error, 'filename', None) or path}: can't be read: {reason}") from error


# --- Protocol buffers: these have few fields, so protobuf is not needed to read and write them ---


def _parse_message(content: bytes) -> dict[int, list[int | bytes]]:
    """Return the values of a protocol buffer's fields by field number: varints and fixed32 as int, others as bytes.

    Raises IndexError, ValueError or struct.error where it is damaged.
    """
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


def _parse_entry(content: bytes) -> TensorEntry:
    """Return the entry that a BundleEntryProto holds; raises ValueError where it is not a tensor of a checkpoint."""
    fields = _parse_message(content)
    numbers = {key: int(values[-1]) for key, values in fields.items() if isinstance(values[-1], int)}
    shape = tuple(_parse_dimension(dim) for dim in _parse_message(_require_bytes(fields.get(2, [b""])[-1])).get(2, []))
    if len(shape) > _MAX_DIMENSIONS:
        raise ValueError(f"a tensor has {len(shape)} dimensions")
    if numbers.get(1) not in _DTYPES:
        raise ValueError(f"a tensor has TensorFlow's type number {numbers.get(1)}, which no GPT-2 checkpoint holds")
    entry = TensorEntry(
        _DTYPES[numbers[1]], shape, numbers.get(3, 0), numbers.get(4, 0), numbers.get(5, 0), numbers.get(6, 0)
    )
    if entry.size != math.prod(shape) * int(entry.dtype[-1]):
        raise ValueError("a tensor's size disagrees with its shape")
    return entry


def _parse_dimension(content: int | bytes) -> int:
    return int(_parse_message(_require_bytes(content)).get(1, [0])[-1])


def _require_bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("a field is a number where a message should stand")
    return value


def _header() -> bytes:
    """Return a BundleHeaderProto: num_shards 1; endianness little, the default, left out; version's producer 1."""
    return b"\x08\x01\x1a\x02\x08\x01"


def _encoded(entry: TensorEntry) -> bytes:
    """Return a float32 tensor's BundleEntryProto; shard 0 and offset 0, being defaults, are left out."""
    dims = b"".join(
        b"\x12" + sstable.encode_varint(len(dim)) + dim
        for dim in (b"\x08" + sstable.encode_varint(n) for n in entry.shape)
    )
    content = b"\x08\x01\x12" + sstable.encode_varint(len(dims)) + dims
    if entry.offset:
        content += b"\x20" + sstable.encode_varint(entry.offset)
    return content + b"\x28" + sstable.encode_varint(entry.size) + b"\x35" + struct.pack("<I", entry.crc)
