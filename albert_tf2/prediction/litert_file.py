"""A model as one file for LiteRT, read without TensorFlow.

`hub_export.litert_part` writes such files, `litert` runs them. Behind the
network's flatbuffer a file is a zip archive (`hub_export.tflite_archive`):
the vocabulary, `task.json` of a fine-tuned model, and `metadata.json` with the
network's own length and SHA-256. LiteRT trusts what it maps into memory, so a
file that is not what was written is told before it is opened.
"""

import hashlib
import json
import zipfile
from typing import Any, NamedTuple

from albert_tf2 import features, paths
from albert_tf2.errors import UserError
from albert_tf2.tasks import base
from albert_tf2.text.text_settings import SETTINGS_FILE, TextSettings
from albert_tf2.text.tokenization import VOCAB_FILE, Tokenizer, Vocabulary

ENDING = ".tflite"
METADATA = "metadata.json"
# Of `metadata.json`; another number is a file that takes or gives other things.
FORM_KEY, FORM = "rows", 2

# int32 [N] each: what a file takes of the tokens, beside `cls_positions`.
TOKEN_INPUTS = (
    features.INPUT_WORD_IDS,
    features.INPUT_TYPE_IDS,
    features.INPUT_PAIR_IDS,
    features.INPUT_POSITION_IDS,
)
# The signatures; not every file has the second.
TOKENS, TEXTS = "serving_default", "texts"
TASK_LOGITS = "task_logits"
# Kinds whose head reads every token.
PER_TOKEN = (base.TAGGING, base.SPAN)
CHUNK_BYTES = 1 << 20


def seal(network: bytes) -> dict[str, Any]:
    """Returns what the metadata say of a network, so that damage is seen."""
    digest = hashlib.sha256(network).hexdigest()
    return {FORM_KEY: FORM, "bytes": len(network), "sha256": digest}


def file_name(precision: str) -> str:
    """Returns what the file of one precision is called in its folder."""
    return f"model_{precision}{ENDING}"


class LiteFile(NamedTuple):
    """What a file holds.

    Attributes:
        path: Where it lies on this machine.
        precision: "fp32" or "dynamic_int8".
        positions: The most tokens of a text.
        hidden_size: H of the model.
        tokenizer: The model's.
        task: `task.json` of a fine-tuned model; {} of others.
    """

    path: str
    precision: str
    positions: int
    hidden_size: int
    tokenizer: Tokenizer
    task: dict[str, Any]


def read(path: paths.PathLike) -> LiteFile:
    """Reads what a file holds, and checks that it is whole.

    Raises:
        UserError: If it is missing, damaged, or another kind of file.
    """
    here = paths.fetched(path)
    with paths.named(path, here):
        try:
            return _read(here)
        except UserError:
            raise
        except (KeyError, TypeError, ValueError):
            raise _damaged(
                here, "its metadata are not what was written"
            ) from None


def task_of(path: paths.PathLike) -> dict[str, Any]:
    """Returns `task.json` of a file; {} where the model is not fine-tuned."""
    return _parts(paths.fetched(path))[1]


def _read(path: str) -> LiteFile:
    metadata, task, archived = _parts(path)
    digest = hashlib.sha256()
    left = metadata["bytes"]
    with paths.open_binary(path) as stream:
        while left and (chunk := stream.read(min(left, CHUNK_BYTES))):
            digest.update(chunk)
            left -= len(chunk)
    if digest.hexdigest() != metadata["sha256"]:
        raise _damaged(path, "its network is not what was written")
    vocabulary = Vocabulary(
        archived[VOCAB_FILE].decode().split("\n")[:-1],
        source=f"{path}: {VOCAB_FILE}",
    )
    settings = TextSettings.from_dict(
        json.loads(archived[SETTINGS_FILE]), source=f"{path}: {SETTINGS_FILE}"
    )
    config = metadata["config"]
    return LiteFile(
        path,
        str(metadata["precision"]),
        int(config["max_position_embeddings"]),
        int(config["hidden_size"]),
        Tokenizer(vocabulary, settings),
        task,
    )


def _parts(
    path: str,
) -> tuple[dict[str, Any], dict[str, Any], dict[str, bytes]]:
    """Returns metadata, task and the archive, as the file has them."""
    try:
        with paths.open_binary(path) as stream, zipfile.ZipFile(stream) as z:
            archived = {name: z.read(name) for name in z.namelist()}
        metadata = json.loads(archived[METADATA])
        task = json.loads(archived.get(base.TASK_FILE, b"{}"))
        if not isinstance(metadata, dict) or not isinstance(task, dict):
            raise ValueError("both are objects")
    except (KeyError, ValueError, zipfile.BadZipFile, zipfile.LargeZipFile):
        raise _damaged(path, "it has no archive that can be read") from None
    if isinstance(metadata.get(FORM_KEY), int) and metadata[FORM_KEY] < FORM:
        raise UserError(
            f"{path} was written by an older version: write it again with "
            "python -m albert_tf2.hub_export.export --what litert"
        )
    if metadata.get(FORM_KEY) != FORM:
        raise UserError(
            f"{path} is a {ENDING} file of another kind, such as those for "
            "phones: python -m albert_tf2.hub_export.export --what litert "
            "writes what --engine litert reads"
        )
    return metadata, task, archived


def _damaged(path: str, why: str) -> UserError:
    return UserError(f"{path} is damaged ({why}): write it again")
