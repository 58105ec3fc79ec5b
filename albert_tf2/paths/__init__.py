"""The one door for paths: this machine, `file://`, `gs://`, `s3://`, ...

Every path that a user gives goes through here, as text or `os.PathLike`, and
means the same everywhere. Local paths and `file://` are the standard
library's; what TensorFlow serves (`gs://`, `ram://`) goes through
`tf.io.gfile`, so with the client that records and checkpoints use; any other
scheme goes to fsspec. Importing this loads neither. Failures are one sentence
(`UserError`) with the path and the remedy. See docs/paths.md.

    with paths.atomic_file(paths.join(folder, "report.txt")) as stream:
        stream.write("...")
"""

from albert_tf2.paths.backends import PathLike, shown
from albert_tf2.paths.cache import CACHE_VARIABLE, cache_folder
from albert_tf2.paths.locks import Lock, lock
from albert_tf2.paths.reading import (
    Version,
    describe_files,
    entries,
    exists,
    find,
    for_tensorflow,
    is_dir,
    is_file,
    is_remote,
    join,
    local,
    name,
    names,
    open_binary,
    open_text,
    parent,
    parse_json,
    read_bytes,
    read_json,
    read_text,
    sha256,
    size,
    told,
    version,
)
from albert_tf2.paths.writing import (
    append_line,
    atomic_directory,
    atomic_file,
    copy_file,
    copy_folder,
    fetched,
    kept_folder,
    local_copy,
    make_folder,
    named,
    remove_file,
    remove_folder,
    remove_leftovers,
    temporary_folder,
    write_json,
)

__all__ = [
    "CACHE_VARIABLE",
    "Lock",
    "PathLike",
    "Version",
    "append_line",
    "atomic_directory",
    "atomic_file",
    "cache_folder",
    "copy_file",
    "copy_folder",
    "describe_files",
    "entries",
    "exists",
    "fetched",
    "find",
    "for_tensorflow",
    "is_dir",
    "is_file",
    "is_remote",
    "join",
    "kept_folder",
    "local",
    "local_copy",
    "lock",
    "make_folder",
    "name",
    "named",
    "names",
    "open_binary",
    "open_text",
    "parent",
    "parse_json",
    "read_bytes",
    "read_json",
    "read_text",
    "remove_file",
    "remove_folder",
    "remove_leftovers",
    "sha256",
    "shown",
    "size",
    "temporary_folder",
    "told",
    "version",
    "write_json",
]
