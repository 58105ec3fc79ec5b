"""Parts on disk: written whole or not at all, checked when they are read."""

import hashlib
import json
import struct

from albert_tf2 import paths
from albert_tf2.errors import UserError

from . import parts

# A part on disk: the length of its header, the header as JSON, the frames.
PART = ".part"
_HEAD = struct.Struct("<Q")


def part_name(file_number: int, unit_index: int) -> str:
    """Names a part so that names sort in the order of the corpus."""
    return f"{file_number:08d}-{unit_index:08d}{PART}"


def place_of(name: str) -> tuple[int, int]:
    """Returns the number of the file and of the unit that a part is of."""
    file_number, _, rest = name.partition("-")
    return int(file_number), int(rest.removesuffix(PART))


def write_part(path: str, part: parts.Part) -> None:
    """Writes a part, whole or not at all."""
    keys = sorted(part.groups)
    blocks = [b"".join(part.groups[key]) for key in keys]
    payload = b"".join(blocks)
    header = {
        "head": [part.head.counts, part.head.joint, part.head.continued],
        "groups": [
            [*key, len(block)] for key, block in zip(keys, blocks, strict=True)
        ],
        "digest": hashlib.blake2b(payload, digest_size=16).hexdigest(),
    }
    text = json.dumps(header).encode()
    with paths.atomic_file(path, "wb", fsync=False) as stream:
        stream.write(_HEAD.pack(len(text)) + text + payload)


def read_part(
    path: str,
) -> tuple[parts.Head, dict[tuple[str, int], memoryview]]:
    """Reads a part in one go.

    Returns:
        What it tells about itself, and the frames of each (subset, shard),
        one after the other.

    Raises:
        ValueError: If it is damaged.
    """
    try:
        with paths.open_binary(path) as stream:
            whole = stream.seek(0, 2)
            stream.seek(0)
            (length,) = _HEAD.unpack(stream.read(_HEAD.size))
            header = json.loads(stream.read(min(length, whole)))
            counts, joint, continued = header["head"]
            sizes = [size for _, _, size in header["groups"]]
            # Before memory is taken for what may be no part.
            if _HEAD.size + length + sum(sizes) != whole:
                raise ValueError(f"{path} is damaged")
            content = memoryview(stream.read())
        digest = hashlib.blake2b(content, digest_size=16).hexdigest()
        if digest != header["digest"]:
            raise ValueError(f"{path} is damaged")
        blocks = {}
        end = 0
        for subset, shard, size in header["groups"]:
            blocks[subset, shard] = content[end : end + size]
            end += size
    except (KeyError, TypeError, struct.error) as error:
        raise ValueError(f"{path} is damaged ({error!r})") from error
    return parts.Head(counts, parts.Joint(*joint), continued), blocks


def load_head(path: str) -> parts.Head | None:
    """Checks a part of an earlier run; None if it is missing or damaged."""
    try:
        return read_part(path)[0]
    except (OSError, ValueError, UserError):
        return None
