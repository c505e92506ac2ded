"""Sorted string tables, of which a TensorFlow checkpoint's index is one, and the numbers of any length in them.

Format: tensorflow `core/lib/io/table`, LevelDB's: blocks of prefix-compressed entries, each block followed by a
compression byte and a masked crc32c, then a block of block handles and a footer of 48 bytes.
"""

import struct
from collections.abc import Iterator

MAGIC = 0xDB4775248B80FB57
FOOTER = 48  # bytes
_TRAILER = 5  # bytes after a block: compression type, masked crc32c
_RESTART_INTERVAL = 16  # entries
_NO_COMPRESSION = 0


def read_entries(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """All key-value pairs; raises ValueError where the bytes are no table."""
    if len(content) < FOOTER or struct.unpack("<Q", content[-8:])[0] != MAGIC:
        raise ValueError("its last bytes are not a table's")
    footer = content[-FOOTER:]
    _, _, at = _handle(footer, 0)
    offset, size, _ = _handle(footer, at)
    left = len(content)
    for _, value in _block(content, offset, size):
        offset, size, _ = _handle(value, 0)
        left -= size + _TRAILER
        if left < 0:
            raise ValueError("its blocks lie over each other")
        yield from _block(content, offset, size)


def _block(content: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    if offset + size + _TRAILER > len(content):
        raise ValueError("a block reaches beyond its end")
    block = content[offset : offset + size]
    kind, crc = struct.unpack("<BI", content[offset + size : offset + size + _TRAILER])
    if kind != _NO_COMPRESSION:
        raise ValueError("a block is compressed, which TensorFlow never does in a checkpoint")
    if crc != masked_crc(block + bytes([kind])):
        raise ValueError("a block fails its crc32c check")
    restarts = struct.unpack("<I", block[-4:])[0]
    at, end, key = 0, size - 4 * (restarts + 1), b""
    left = _RESTART_INTERVAL * size  # bytes of all keys, of which each that begins an interval is written out
    while at < end:
        shared, at = read_varint(block, at)
        unshared, at = read_varint(block, at)
        length, at = read_varint(block, at)
        left -= shared + unshared
        if shared > len(key) or at + unshared + length > end or left < 0:
            raise ValueError("an entry reaches beyond its block")
        key = key[:shared] + block[at : at + unshared]
        yield key, block[at + unshared : at + unshared + length]
        at += unshared + length


def build_table(pairs: list[tuple[bytes, bytes]]) -> bytes:
    """A table of pairs, which are sorted by their keys."""
    content = bytearray()
    data = _append_block(content, pairs)
    metaindex = _append_block(content, [])
    beyond = bytes([pairs[-1][0][0] + 1])  # TensorFlow shortens the last key to one just above it
    index = _append_block(content, [(beyond, data)])
    footer = (metaindex + index).ljust(FOOTER - 8, b"\0")
    return bytes(content) + footer + struct.pack("<Q", MAGIC)


def _append_block(content: bytearray, pairs: list[tuple[bytes, bytes]]) -> bytes:
    """Add a block and its trailer; gives its handle."""
    block, restarts, previous = bytearray(), [0], b""
    for number, (key, value) in enumerate(pairs):
        if number and number % _RESTART_INTERVAL == 0:
            restarts.append(len(block))
            previous = b""
        shared = next((i for i, (a, b) in enumerate(zip(previous, key, strict=False)) if a != b), len(previous))
        block += (
            encode_varint(shared) + encode_varint(len(key) - shared) + encode_varint(len(value)) + key[shared:] + value
        )
        previous = key
    block += struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))
    handle = encode_varint(len(content)) + encode_varint(len(block))
    content += block + struct.pack("<BI", _NO_COMPRESSION, masked_crc(bytes(block) + bytes([_NO_COMPRESSION])))
    return handle


def _handle(content: bytes, at: int) -> tuple[int, int, int]:
    offset, at = read_varint(content, at)
    size, at = read_varint(content, at)
    return offset, size, at


def masked_crc(content: bytes) -> int:
    """The checksum of a block, or of a tensor."""
    import google_crc32c

    return mask_crc(google_crc32c.value(content))


def mask_crc(crc: int) -> int:
    """crc32c, rotated and shifted as TensorFlow and LevelDB store it (core/lib/hash/crc32c.h)."""
    return int(((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def read_varint(content: bytes, at: int) -> tuple[int, int]:
    """A number, and where it ends; raises IndexError or ValueError where there is none."""
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


def encode_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
