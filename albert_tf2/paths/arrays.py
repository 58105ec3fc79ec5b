"""Files of NumPy arrays, read with suspicion.

NumPy's own reader takes the memory that a header asks for before it looks how
long the file is, and opens a zip where an array belongs. Here the header is
read first: what it declares must be what is there.
"""

import math
import zipfile
from typing import IO, Any

import numpy as np

from albert_tf2.errors import UserError
from albert_tf2.paths.backends import PathLike, shown
from albert_tf2.paths.reading import local, open_binary

# Of the arrays of a file that is read whole.
MOST_ARRAY_BYTES = 2 << 30
_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_array(path: PathLike, most: int = MOST_ARRAY_BYTES) -> np.ndarray:
    """Reads what `numpy.save` wrote: numbers or texts, never objects.

    Args:
        path: The file.
        most: The bytes above which it is refused.

    Raises:
        UserError: If it is damaged, too large, or no such file.
    """
    with open_binary(path) as stream:
        try:
            size = stream.seek(0, 2)
            stream.seek(0)
            return _read(stream, size, most)
        except Exception as error:
            raise _no_array(path, error) from error


def read_arrays(
    path: PathLike, most: int = MOST_ARRAY_BYTES
) -> dict[str, np.ndarray]:
    """Reads what `numpy.savez` wrote, by name; see `read_array`."""
    found: dict[str, np.ndarray] = {}
    with open_binary(path) as stream:
        try:
            with zipfile.ZipFile(stream) as members:
                for info in members.infolist():
                    name = info.filename.removesuffix(".npy")
                    with members.open(info) as member:
                        found[name] = _read(member, info.file_size, most)
                    most -= found[name].nbytes
        except Exception as error:
            raise _no_array(path, error) from error
    return found


def map_array(path: PathLike) -> np.ndarray:
    """Opens what `numpy.save` wrote on a local disk; pages come when used."""
    with open_binary(path) as stream:  # a pipe would wait for its writer
        try:
            size = stream.seek(0, 2)
            stream.seek(0)
            _header(stream, size)
            return np.load(local(path), mmap_mode="r", allow_pickle=False)
        except Exception as error:
            raise _no_array(path, error) from error


def _header(stream: IO[bytes], size: int) -> tuple[tuple, bool, np.dtype]:
    """Reads a header, and compares what it declares with what follows."""
    version = np.lib.format.read_magic(stream)
    if version not in _READERS:
        raise ValueError(f"version {version} of the format")
    shape, fortran_order, dtype = _READERS[version](stream)
    if dtype.hasobject:
        raise ValueError("it holds objects, not numbers")
    declared = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or declared != size - stream.tell():
        raise ValueError(
            f"it declares the shape {list(shape)}, {declared:,} bytes, and "
            f"{size - stream.tell():,} bytes follow"
        )
    return shape, fortran_order, dtype


def _read(stream: IO[bytes], size: int, most: int) -> np.ndarray:
    shape, fortran_order, dtype = _header(stream, size)
    count = math.prod(shape) * dtype.itemsize
    if count > most:
        raise ValueError(f"it is larger than {most:,} bytes")
    content = stream.read(count)
    array: Any = np.frombuffer(bytearray(content), dtype)
    return array.reshape(shape, order="F" if fortran_order else "C")


def _no_array(path: PathLike, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:160] or type(error).__name__
    return UserError(
        f"{shown(path)}: not an array of numbers, or damaged ({reason}): "
        "write it again"
    )
