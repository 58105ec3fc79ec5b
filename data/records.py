"""Records on disk: TFRecord files of `tf.train.Example`, without TensorFlow.

A compact record is a row of pairs, not yet masked (`albert_tf2.features`):

    pairs:            春 天 | 来 了     今 天 | 晴
    tokens:           春* 天 来* 了 今* 天 晴*    uint16, * = top bit: a word
    segment_lengths:  2 2 2 1                     begins here

TensorFlow takes seconds and half a gigabyte in every process, so the few
bytes around the payload are written here: the protobuf wire format, and the
TFRecord frame with its masked CRC-32C.
"""

import struct
from collections.abc import Iterator, Sequence

import google_crc32c
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
        _FIRST,
        _entry(_TOKENS_KEY, _message(_FIRST, _message(_FIRST, tokens)))
        + _entry(_LENGTHS_KEY, _message(_THIRD, _message(_FIRST, lengths))),
    )


def _entry(key: bytes, feature: bytes) -> bytes:
    """An entry of the map `Features.feature`; its key is encoded already."""
    return _message(_FIRST, key + _message(_SECOND, feature))


def _message(tag: bytes, content: bytes) -> bytes:
    """A length-delimited protobuf field."""
    return tag + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    if value < len(_VARINTS):
        return _VARINTS[value]
    return bytes([value & 0x7F | 0x80]) + _varint(value >> 7)


# Tags of length-delimited fields, and all numbers that records are full of.
_FIRST, _SECOND, _THIRD = (bytes([field << 3 | 2]) for field in (1, 2, 3))
_VARINTS = [bytes([value]) for value in range(0x80)]
_VARINTS = [_varint(value) for value in range(1 << 12)]
_TOKENS_KEY, _LENGTHS_KEY = (
    _message(_FIRST, key.encode()) for key in (TOKENS, SEGMENT_LENGTHS)
)


def frame(payloads: Sequence[bytes]) -> list[bytes]:
    """Puts each payload into its TFRecord frame.

    A frame is the length (uint64), its checksum, the payload, its checksum.
    """
    frames = []
    for payload in payloads:
        length = struct.pack("<Q", len(payload))
        sums = (_checksum(length), _checksum(payload))
        frames.append(b"".join((length, sums[0], payload, sums[1])))
    return frames


def _checksum(data: bytes) -> bytes:
    """CRC-32C, rotated and shifted, as TFRecord files mask it."""
    crc = google_crc32c.value(data)
    rotated = (crc >> 15 | crc << 17) & 0xFFFFFFFF
    return struct.pack("<I", (rotated + 0xA282EAD8) & 0xFFFFFFFF)


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
