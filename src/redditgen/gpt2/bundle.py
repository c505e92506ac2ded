"""TensorFlow checkpoints (`model.ckpt.index`, `model.ckpt.data-00000-of-00001`) with numpy and no TensorFlow.

Format: tensorflow `core/util/tensor_bundle` over `core/lib/io/table`. The index is a sorted string table as LevelDB's:
blocks of prefix-compressed entries, each block followed by a compression byte and a masked crc32c, then a block of
block handles and a footer of 48 bytes. The entry '' holds a BundleHeaderProto; every other maps a tensor's name to a
BundleEntryProto (dtype, shape, shard, offset, size, masked crc32c of its bytes). The data files hold the tensors'
bytes, little-endian.

Written files are complete before they take their names, data first, so a crash leaves the previous checkpoint
readable.
"""

import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from redditgen.errors import InputError, MissingError
from redditgen.output import settle

if TYPE_CHECKING:
    import numpy as np

_MAGIC = 0xDB4775248B80FB57
_FOOTER = 48  # bytes
_TRAILER = 5  # bytes after a block: compression type, masked crc32c
_RESTART_INTERVAL = 16  # entries
_NO_COMPRESSION = 0
_DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8", 19: "<f2"}  # tensorflow/core/framework/types.proto
_INDEX_LIMIT = 64 << 20  # bytes; GPT-2 1558M's index has 20 kB


@dataclass(frozen=True)
class Entry:
    """Where a tensor's bytes lie: the shard's number, offset and size in bytes, masked crc32c."""

    dtype: str
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int


def read_index(prefix: Path) -> tuple[dict[str, Entry], int]:
    """The entries of `<prefix>.index` by tensor name, and the number of data files.

    Raises MissingError or InputError naming the file.
    """
    path = Path(f"{prefix}.index")
    content = _read_file(path)
    try:
        pairs = dict(_table(content))
        header = _message(pairs.pop(b""))
        entries = {name.decode("utf8"): _entry(value) for name, value in pairs.items()}
        return entries, int(header.get(1, [1])[0])
    except (IndexError, KeyError, ValueError, TypeError, struct.error) as error:
        raise InputError(
            f"{path}: is no whole TensorFlow checkpoint index ({error}); copy or download it anew"
        ) from error


def read_matching_index(prefix: Path, shapes: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, Entry], int]:
    """The same, with the tensors that `shapes` names in these shapes; raises InputError naming one that is not."""
    entries, shards = read_index(prefix)
    for name, shape in shapes.items():
        if name not in entries:
            raise InputError(f"{prefix}.index: holds no tensor {name}; is hparams.json another model's?")
        if entries[name].shape != shape:
            stands, wanted = list(entries[name].shape), list(shape)
            raise InputError(f"{prefix}.index: {name} is {stands} but hparams.json asks for {wanted}")
    return entries, shards


def read(prefix: Path, shapes: Mapping[str, tuple[int, ...]]) -> "dict[str, np.ndarray]":
    """The tensors that `shapes` names, each checked against its shape and its crc32c; others are left alone.

    Raises MissingError for a missing file, and InputError naming the file and the tensor for anything else.
    """
    entries, shards = read_matching_index(prefix, shapes)
    return {name: _read_tensor(_data_path(prefix, entries[name].shard, shards), name, entries[name]) for name in shapes}


def verify(prefix: Path) -> None:
    """Check every tensor's crc32c, with one tensor in memory at a time; raises as `read` does."""
    entries, shards = read_index(prefix)
    for name, entry in entries.items():
        _read_tensor(_data_path(prefix, entry.shard, shards), name, entry)


def write(prefix: Path, tensors: "Mapping[str, np.ndarray]") -> None:
    """Write float32 tensors as `<prefix>.index` and one data file, each renamed into place when whole."""
    data, index = _data_path(prefix, 0, 1), Path(f"{prefix}.index")
    pairs = [(b"", _header())]
    new_data, new_index = (path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in (data, index))
    try:
        with new_data.open("wb") as file:
            for name in sorted(tensors):
                content = tensors[name].astype("<f4", order="C").tobytes()
                entry = Entry("<f4", tensors[name].shape, 0, file.tell(), len(content), _masked_crc(content))
                pairs.append((name.encode("utf8"), _encoded(entry)))
                file.write(content)
            file.flush()
            os.fsync(file.fileno())
        with new_index.open("wb") as file:
            file.write(_built_table(pairs))
            file.flush()
            os.fsync(file.fileno())
        new_data.replace(data)
        new_index.replace(index)
        settle(prefix.parent)
    except OSError as error:
        raise InputError(f"{prefix}: can't be written: {error.strerror or error}") from error
    finally:
        new_data.unlink(missing_ok=True)
        new_index.unlink(missing_ok=True)


def _data_path(prefix: Path, shard: int, shards: int) -> Path:
    return Path(f"{prefix}.data-{shard:05d}-of-{shards:05d}")


def _read_file(path: Path) -> bytes:
    try:
        if path.stat().st_size > _INDEX_LIMIT:
            raise InputError(f"{path}: {path.stat().st_size} bytes are too many for a checkpoint index")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise MissingError(f"{path}: not there, and the checkpoint needs it") from error
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror or error}") from error


def _read_tensor(path: Path, name: str, entry: Entry) -> "np.ndarray":
    import numpy as np

    try:
        with path.open("rb") as file:
            length = file.seek(0, os.SEEK_END)
            if entry.offset + entry.size > length:
                raise InputError(f"{path}: ends before {name} does ({length} bytes); copy or download it anew")
            file.seek(entry.offset)
            content = file.read(entry.size)
    except FileNotFoundError as error:
        raise MissingError(f"{path}: not there, and the checkpoint needs it") from error
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror or error}") from error
    if _masked_crc(content) != entry.crc:
        raise InputError(f"{path}: {name} fails its crc32c check, so the file is damaged; copy or download it anew")
    return np.frombuffer(content, dtype=entry.dtype).reshape(entry.shape).copy()


def _masked_crc(content: bytes) -> int:
    """crc32c, rotated and shifted as TensorFlow and LevelDB store it (core/lib/hash/crc32c.h)."""
    import google_crc32c

    crc = google_crc32c.value(content)
    return int(((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


# --- The table ---


def _table(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """All key-value pairs; raises ValueError where the bytes are no table."""
    if len(content) < _FOOTER or struct.unpack("<Q", content[-8:])[0] != _MAGIC:
        raise ValueError("its last bytes are not a table's")
    footer = content[-_FOOTER:]
    _, _, at = _handle(footer, 0)
    offset, size, _ = _handle(footer, at)
    for _, value in _block(content, offset, size):
        offset, size, _ = _handle(value, 0)
        yield from _block(content, offset, size)


def _block(content: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    if offset + size + _TRAILER > len(content):
        raise ValueError("a block reaches beyond its end")
    block = content[offset : offset + size]
    kind, crc = struct.unpack("<BI", content[offset + size : offset + size + _TRAILER])
    if kind != _NO_COMPRESSION:
        raise ValueError("a block is compressed, which TensorFlow never does in a checkpoint")
    if crc != _masked_crc(block + bytes([kind])):
        raise ValueError("a block fails its crc32c check")
    restarts = struct.unpack("<I", block[-4:])[0]
    at, end, key = 0, size - 4 * (restarts + 1), b""
    while at < end:
        shared, at = _varint(block, at)
        unshared, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + unshared]
        yield key, block[at + unshared : at + unshared + length]
        at += unshared + length


def _built_table(pairs: list[tuple[bytes, bytes]]) -> bytes:
    content = bytearray()
    data = _append_block(content, pairs)
    metaindex = _append_block(content, [])
    beyond = bytes([pairs[-1][0][0] + 1])  # TensorFlow shortens the last key to one just above it
    index = _append_block(content, [(beyond, data)])
    footer = (metaindex + index).ljust(_FOOTER - 8, b"\0")
    return bytes(content) + footer + struct.pack("<Q", _MAGIC)


def _append_block(content: bytearray, pairs: list[tuple[bytes, bytes]]) -> bytes:
    """Add a block and its trailer; gives its handle."""
    block, restarts, previous = bytearray(), [0], b""
    for number, (key, value) in enumerate(pairs):
        if number and number % _RESTART_INTERVAL == 0:
            restarts.append(len(block))
            previous = b""
        shared = next((i for i, (a, b) in enumerate(zip(previous, key, strict=False)) if a != b), len(previous))
        block += _to_varint(shared) + _to_varint(len(key) - shared) + _to_varint(len(value)) + key[shared:] + value
        previous = key
    block += struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))
    handle = _to_varint(len(content)) + _to_varint(len(block))
    content += block + struct.pack("<BI", _NO_COMPRESSION, _masked_crc(bytes(block) + bytes([_NO_COMPRESSION])))
    return handle


def _handle(content: bytes, at: int) -> tuple[int, int, int]:
    offset, at = _varint(content, at)
    size, at = _varint(content, at)
    return offset, size, at


# --- The two protocol buffers, few enough fields to be read by hand ---


def _message(content: bytes) -> dict[int, list[int | bytes]]:
    """A protocol buffer's fields by number: varints and fixed32 as int, the rest as bytes."""
    fields: dict[int, list[int | bytes]] = {}
    at = 0
    while at < len(content):
        tag, at = _varint(content, at)
        value: int | bytes
        match tag & 7:
            case 0:
                value, at = _varint(content, at)
            case 2:
                length, at = _varint(content, at)
                value, at = content[at : at + length], at + length
            case 5:
                value, at = struct.unpack("<I", content[at : at + 4])[0], at + 4
            case wire:
                raise ValueError(f"a field has wire type {wire}")
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _entry(content: bytes) -> Entry:
    fields = _message(content)
    number = {key: int(values[-1]) for key, values in fields.items() if isinstance(values[-1], int)}
    shape = tuple(_dimension(dim) for dim in _message(_bytes(fields.get(2, [b""])[-1])).get(2, []))
    if number.get(1) not in _DTYPES:
        raise ValueError(f"a tensor has TensorFlow's type number {number.get(1)}, which no GPT-2 checkpoint holds")
    entry = Entry(_DTYPES[number[1]], shape, number.get(3, 0), number.get(4, 0), number.get(5, 0), number.get(6, 0))
    items = 1
    for size in shape:
        items *= size
    if entry.size != items * int(entry.dtype[-1]):
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


def _encoded(entry: Entry) -> bytes:
    dims = b"".join(b"\x12" + _to_varint(len(dim)) + dim for dim in (b"\x08" + _to_varint(n) for n in entry.shape))
    content = b"\x08\x01\x12" + _to_varint(len(dims)) + dims
    if entry.offset:
        content += b"\x20" + _to_varint(entry.offset)
    return content + b"\x28" + _to_varint(entry.size) + b"\x35" + struct.pack("<I", entry.crc)


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number is too long")


def _to_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
