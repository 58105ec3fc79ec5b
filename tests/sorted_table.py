"""Writes checkpoint indexes that TensorFlow would never write.

With valid checksums, so that only the contents are wrong.
"""

import struct

CASTAGNOLI = 0x82F63B78


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (CASTAGNOLI if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(crc: int) -> int:
    """LevelDB's mask, which keeps checksums of checksums apart."""
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def varint(number: int) -> bytes:
    out = b""
    while number >= 0x80:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def block(entries) -> bytes:
    out = b""
    for key, value in entries:
        out += varint(0) + varint(len(key)) + varint(len(value)) + key + value
    return out + struct.pack("<II", 0, 1)  # one restart, at 0


def table(
    entries: dict[bytes, bytes],
    compression: int = 0,
    data_block: bytes | None = None,
) -> bytes:
    """Returns an index of `entries`, or with any bytes in their place."""
    out = b""

    def append(contents: bytes) -> bytes:
        nonlocal out
        handle = varint(len(out)) + varint(len(contents))
        contents += bytes([compression])
        out += contents + struct.pack("<I", masked(crc32c(contents)))
        return handle

    data = append(data_block or block(sorted(entries.items())))
    metadata = append(struct.pack("<II", 0, 1))
    index = append(block([(max(entries), data)]))
    footer = (metadata + index).ljust(40, b"\0")
    return out + footer + struct.pack("<Q", 0xDB4775248B80FB57)
