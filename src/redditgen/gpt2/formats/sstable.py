"""Reads and writes sorted string tables, the format of a TensorFlow checkpoint's index.

The format is that of tensorflow `core/lib/io/table`, which is LevelDB's. Numbers are little-endian; a varint has seven
bits in each byte, the lowest first, and a set high bit in every byte but the last.

    table      data blocks, metaindex block, index block, footer
    block      entries; offset of each restart (uint32); number of restarts (uint32)
               trailer: compression type (1 byte), masked crc32c of the block and this byte (uint32)
    entry      number of bytes shared with the previous key, number of further bytes of the key, size of the value
               (varints); further bytes of the key; value
    restart    every 16th entry of a block: it shares no bytes with the previous key
    handle     a block's offset, and its size without the trailer (varints)
    index      an entry per data block: a key not below the block's last one, and the block's handle
    footer     48 bytes: handles of the metaindex and the index, zeros, magic number (uint64)

A table is read in time linear in its size. Handles and lengths are checked against the size, so that a damaged table
can't ask for more memory than a small multiple of it. Tables are written with a single data block.
"""

import struct
from collections.abc import Iterator

MAGIC = 0xDB4775248B80FB57
FOOTER = 48  # bytes of the footer
_TRAILER = 5  # bytes after a block: compression type, masked crc32c
_RESTART_INTERVAL = 16  # entries from one restart to the next
_NO_COMPRESSION = 0


def read_entries(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield a table's pairs of key and value in order; raises IndexError or ValueError where it is damaged."""
    if len(content) < FOOTER or struct.unpack("<Q", content[-8:])[0] != MAGIC:
        raise ValueError("its last bytes are not a table's")
    footer = content[-FOOTER:]
    _, _, at = _read_handle(footer, 0)
    offset, size, _ = _read_handle(footer, at)
    remaining = len(content)  # data blocks that don't overlap are no larger than the table
    for _, value in _read_block(content, offset, size):
        offset, size, _ = _read_handle(value, 0)
        remaining -= size + _TRAILER
        if remaining < 0:
            raise ValueError("its blocks lie over each other")
        yield from _read_block(content, offset, size)


def _read_block(content: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield the pairs of the block with this handle; raises ValueError where it is damaged."""
    if offset + size + _TRAILER > len(content):
        raise ValueError("a block reaches beyond its end")
    block = content[offset : offset + size]
    compression, crc = struct.unpack("<BI", content[offset + size : offset + size + _TRAILER])
    if compression != _NO_COMPRESSION:
        raise ValueError("a block is compressed, which TensorFlow never does in a checkpoint")
    if crc != masked_crc(block + bytes([compression])):
        raise ValueError("a block fails its crc32c check")
    restarts = struct.unpack("<I", block[-4:])[0]
    at, end, key = 0, size - 4 * (restarts + 1), b""
    # The keys of a block can have no more bytes than this, since the key of a restart is stored in full.
    remaining = _RESTART_INTERVAL * size
    while at < end:
        shared, at = read_varint(block, at)
        unshared, at = read_varint(block, at)
        length, at = read_varint(block, at)
        remaining -= shared + unshared
        if shared > len(key) or at + unshared + length > end or remaining < 0:
            raise ValueError("an entry reaches beyond its block")
        key = key[:shared] + block[at : at + unshared]
        yield key, block[at + unshared : at + unshared + length]
        at += unshared + length


def build_table(pairs: list[tuple[bytes, bytes]]) -> bytes:
    """Return a table of `pairs`, of which there is at least one, sorted by key."""
    content = bytearray()
    data = _append_block(content, pairs)
    metaindex = _append_block(content, [])
    # As TensorFlow does, the index has a shorter key than the last one, greater than it.
    index_key = bytes([pairs[-1][0][0] + 1])
    index = _append_block(content, [(index_key, data)])
    footer = (metaindex + index).ljust(FOOTER - 8, b"\0")
    return bytes(content) + footer + struct.pack("<Q", MAGIC)


def _append_block(content: bytearray, pairs: list[tuple[bytes, bytes]]) -> bytes:
    """Append a block of `pairs` and its trailer to `content`; return its handle."""
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


def _read_handle(content: bytes, at: int) -> tuple[int, int, int]:
    """Return the offset and size in the handle at offset `at`, and the offset after the handle."""
    offset, at = read_varint(content, at)
    size, at = read_varint(content, at)
    return offset, size, at


def masked_crc(content: bytes) -> int:
    """Return the masked crc32c of bytes, the checksum of blocks and tensors."""
    import google_crc32c

    return mask_crc(google_crc32c.value(content))


def mask_crc(crc: int) -> int:
    """Return a crc32c masked as TensorFlow and LevelDB store it: rotated, plus a constant (core/lib/hash/crc32c.h)."""
    return int(((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def read_varint(content: bytes, at: int) -> tuple[int, int]:
    """Return the varint at offset `at` and the offset after it.

    Raises IndexError where the bytes end inside it, and ValueError where it has more than ten bytes.
    """
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
    """Return a number that is not negative as a varint."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
