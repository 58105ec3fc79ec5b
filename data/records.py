"""Records on disk: TFRecord files of `tf.train.Example`, without TensorFlow.

A compact record is a row of pairs, not yet masked (`albert_tf2.features`):

    pairs:            春 天 | 来 了     今 天 | 晴
    tokens:           春* 天 来* 了 今* 天 晴*    uint16, * = top bit: a word
    segment_lengths:  2 2 2 1                     begins here

TensorFlow takes seconds and half a gigabyte in every process, so the few
bytes around the payload are written here: the protobuf wire format, and the
TFRecord frame with its masked CRC-32C, computed for many records at once.
"""

import struct
from collections.abc import Iterator, Sequence

import numpy as np

from albert_tf2 import paths
from albert_tf2.errors import UserError
from albert_tf2.features import SEGMENT_LENGTHS, TOKENS


def token_dtype(vocab_size: int) -> str:
    """uint16 leaves 15 bits for the id; uint32 is for larger vocabularies."""
    return "uint16" if vocab_size <= 1 << 15 else "uint32"


def pack_tokens(
    ids: np.ndarray, word_starts: np.ndarray, dtype: str
) -> np.ndarray:
    """Returns little-endian ids with the top bit set where a word begins."""
    kind = np.dtype(dtype).newbyteorder("<")
    top_bit = kind.itemsize * 8 - 1
    return ids.astype(kind) | (word_starts.astype(kind) << top_bit)


def compact_example(tokens: bytes, segment_lengths: Sequence[int]) -> bytes:
    """Returns a serialized `tf.train.Example` with the two compact keys."""
    lengths = b"".join(map(_varint, segment_lengths))
    return _message(
        1,
        _entry(TOKENS, _message(1, _message(1, tokens)))
        + _entry(SEGMENT_LENGTHS, _message(3, _message(1, lengths))),
    )


def _entry(key: str, feature: bytes) -> bytes:
    """An entry of the map `Features.feature`."""
    return _message(1, _message(1, key.encode()) + _message(2, feature))


def _message(field: int, content: bytes) -> bytes:
    """A length-delimited protobuf field."""
    return bytes([field << 3 | 2]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def frame(payloads: Sequence[bytes]) -> list[bytes]:
    """Puts each payload into its TFRecord frame.

    A frame is the length (uint64), its checksum, the payload, its checksum.
    """
    heads = [struct.pack("<Q", len(payload)) for payload in payloads]
    head_sums = masked_crc32c(heads).tolist()
    sums = masked_crc32c(payloads).tolist()
    return [
        b"".join((head, struct.pack("<I", a), payload, struct.pack("<I", b)))
        for head, a, payload, b in zip(
            heads, head_sums, payloads, sums, strict=True
        )
    ]


FRAME_OVERHEAD = 16


def payload_of(one: bytes | memoryview) -> bytes:
    """Returns what a frame holds."""
    return bytes(one[12:-4])


def split_frames(data: bytes) -> list[memoryview]:
    """Cuts concatenated frames apart."""
    view = memoryview(data)
    frames = []
    start = 0
    while start < len(data):
        (length,) = struct.unpack_from("<Q", data, start)
        end = start + length + FRAME_OVERHEAD
        frames.append(view[start:end])
        start = end
    assert start == len(data), "frames do not end where the data ends"
    return frames


def read_records(path: str) -> Iterator[bytes]:
    """Yields the payloads of a TFRecord file; damage is a `UserError`."""
    with paths.open_binary(path) as stream:
        number = 0
        while head := stream.read(12):
            (length,) = struct.unpack("<Q", head[:8].ljust(8, b"\0"))
            intact = len(head) == 12 and length < 1 << 32
            body = stream.read(length + 4) if intact else b""
            if (
                not intact
                or len(body) != length + 4
                or frame([body[:-4]])[0] != head + body
            ):
                raise UserError(
                    f"{path}, record {number}: the record is damaged; run "
                    "the builder with --verify to rebuild the shard"
                )
            yield body[:-4]
            number += 1


def _crc_table(width: int) -> np.ndarray:
    """CRC-32C (Castagnoli, reflected) of every `width`-bit value."""
    table: np.ndarray = np.arange(1 << width, dtype=np.uint32)
    for _ in range(width):
        table = (table >> 1) ^ np.where(table & 1, 0x82F63B78, 0).astype(
            np.uint32
        )
    return table


_CRC_TABLES: dict[int, np.ndarray] = {}


def masked_crc32c(payloads: Sequence[bytes]) -> np.ndarray:
    """Returns the TFRecord checksum of each payload: uint32 [R].

    All payloads advance together, two bytes a step, the longest first, so
    the work is a few NumPy operations per column instead of a Python loop
    per byte.
    """
    for width in (8, 16):
        if width not in _CRC_TABLES:
            _CRC_TABLES[width] = _crc_table(width)
    lengths = np.array([len(p) for p in payloads], np.int64)
    order = np.argsort(-lengths, kind="stable")
    halves = lengths[order] // 2
    longest = int(halves[0]) if len(order) else 0
    columns = np.zeros((len(order), longest), np.uint16)
    for row, number in enumerate(order.tolist()):
        payload = payloads[number]
        pairs = len(payload) // 2
        columns[row, :pairs] = np.frombuffer(payload, "<u2", pairs)
    columns = np.ascontiguousarray(columns.T)  # [longest / 2, R]
    active = np.searchsorted(-halves, -np.arange(longest), side="left")
    crc = np.full(len(order), 0xFFFFFFFF, np.uint32)
    table = _CRC_TABLES[16]
    for column, rows in zip(columns, active.tolist(), strict=True):
        part = crc[:rows]
        crc[:rows] = table[(part ^ column[:rows]) & 0xFFFF] ^ (part >> 16)
    odd = np.flatnonzero(lengths[order] % 2)
    if len(odd):
        last = np.array([payloads[i][-1] for i in order[odd]], np.uint32)
        index = (crc[odd] ^ last) & 0xFF
        crc[odd] = _CRC_TABLES[8][index] ^ (crc[odd] >> 8)
    crc = ~crc
    masked = ((crc >> 15) | (crc << 17)) + np.uint32(0xA282EAD8)
    result = np.empty_like(masked)
    result[order] = masked
    return result
