"""What a TFLite file holds behind its flatbuffer: a zip archive.

As TFLite's own metadata tools make it, so that one file is the whole model:
`metadata.json`, what `albert_tf2.Tokenizer` reads (`vocab.txt` and
`text_settings.json`), and of a fine-tuned model `labels.txt` and `task.json`.
"""

import dataclasses
import io
import json
import unicodedata
import zipfile
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

import albert_tf2
from albert_tf2 import paths
from albert_tf2.errors import UserError
from albert_tf2.text.text_settings import SETTINGS_FILE
from albert_tf2.text.tokenization import VOCAB_FILE, Tokenizer

METADATA = "metadata.json"
LABELS_FILE = "labels.txt"


def write(
    path: paths.PathLike,
    model: bytes,
    metadata: dict[str, Any],
    tokenizer: Tokenizer,
    more: Mapping[str, bytes] | None = None,
) -> None:
    """Writes a model with its archive.

    Args:
        path: The new file.
        model: The flatbuffer.
        metadata: What it is; versions are added.
        tokenizer: Its own.
        more: Further files of the archive, by name.
    """
    metadata = {
        **metadata,
        "versions": {
            "albert_tf2": albert_tf2.__version__,
            "tensorflow": tf.__version__,
            "unicode": unicodedata.unidata_version,
        },
    }
    whole = io.BytesIO(model)
    # Not compressed: MediaPipe reads no other.
    with zipfile.ZipFile(whole, "a") as archive:
        for name, content in {
            METADATA: json_bytes(metadata),
            VOCAB_FILE: tokenizer.vocabulary.to_bytes(),
            SETTINGS_FILE: json_bytes(dataclasses.asdict(tokenizer.settings)),
            **(more or {}),
        }.items():
            # Its dates are fixed, so bytes are too.
            archive.writestr(zipfile.ZipInfo(name), content)
    with paths.atomic_file(path, "wb") as stream:
        stream.write(whole.getbuffer())


def json_bytes(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=2).encode("utf-8")


def specs_described(specs: Mapping[str, tf.TensorSpec]) -> dict[str, Any]:
    """Returns shapes and types by name, as the metadata hold them."""
    return {
        name: {"shape": spec.shape.as_list(), "type": spec.dtype.name}
        for name, spec in specs.items()
    }


def read_metadata(path: paths.PathLike) -> dict[str, Any]:
    """Returns what `export_tflite` wrote about a model."""
    try:
        with paths.open_binary(path) as stream, zipfile.ZipFile(stream) as z:
            return json.loads(z.read(METADATA))
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} is no TFLite model of this project ({error})"
        ) from error
