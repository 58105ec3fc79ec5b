"""Metadata in TFLite's own schema: what MediaPipe's text tasks read.

    TextClassifier, TextEmbedder     text -> [CLS] tokens [SEP] -> probabilities
                                     by label, or a vector

MediaPipe cuts a text as BERT does, with the vocabulary inside the file, and
lowers ASCII letters always. So a file gets its metadata only where that is the
model's own way of reading one text (`fits`).

The schema is TensorFlow Lite's metadata_schema.fbs: a table is written here as
its fields by number, which is all that a flatbuffer knows of them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flatbuffers
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils

from albert_tf2 import features
from albert_tf2.tasks import base
from albert_tf2.text.text_settings import TextSettings
from albert_tf2.text.tokenization import VOCAB_FILE

NAME = "TFLITE_METADATA"
IDENTIFIER = b"M001"
# Of enum AssociatedFileType.
TENSOR_AXIS_LABELS, VOCABULARY = 2, 5
# Of union ProcessUnitOptions.
BERT_TOKENIZER = 4
# What MediaPipe calls the inputs of BERT.
INPUTS = {
    features.INPUT_WORD_IDS: "ids",
    features.INPUT_MASK: "mask",
    features.INPUT_TYPE_IDS: "segment_ids",
}
TASKS = {
    base.CLASSIFICATION: "TextClassifier",
    base.MULTI_LABEL: "TextClassifier",
    base.VECTORS: "TextEmbedder",
}

# A table of a flatbuffer: its fields by number, in the order of the schema.
Table = Mapping[int, Any]


def fits(kind: str, pairs: bool, settings: TextSettings) -> bool:
    """Whether MediaPipe reads texts as the model does.

    Args:
        kind: Of the task.
        pairs: Whether the model takes two texts: MediaPipe's tasks take one.
        settings: How the model's texts become tokens.
    """
    lowers = settings.do_lower_case and not settings.normalize
    return kind in TASKS and not pairs and lowers


def with_metadata(
    model: bytes, *, kind: str, output: str, labels_file: str | None
) -> bytes:
    """Returns a TFLite model with its metadata.

    Args:
        model: The flatbuffer, with the inputs `features.ENCODER_INPUTS`.
        kind: Of the task, a key of `TASKS`.
        output: What the one output is.
        labels_file: The name of the file of labels behind the model.
    """
    held = flatbuffer_utils.convert_bytearray_to_object(bytearray(model))
    graph = held.subgraphs[0]
    names = [graph.tensors[i].name.decode() for i in graph.inputs]
    labels = [_file(labels_file, TENSOR_AXIS_LABELS)] if labels_file else []
    tokenizer = {0: BERT_TOKENIZER, 1: {0: [_file(VOCAB_FILE, VOCABULARY)]}}
    described = {
        0: TASKS[kind],
        3: [
            {
                2: [_tensor(_input_of(name)) for name in names],
                3: [_tensor(output, labels)],
                5: [tokenizer],
            }
        ],
    }
    builder = flatbuffers.Builder(0)
    builder.Finish(_written(builder, described), file_identifier=IDENTIFIER)
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = builder.Output()
    entry.name, entry.buffer = NAME, len(held.buffers)
    held.buffers.append(buffer)
    held.metadata = [*(held.metadata or ()), entry]
    return bytes(flatbuffer_utils.convert_object_to_bytearray(held))


def _input_of(tensor: str) -> str:
    """Returns MediaPipe's name of `serving_default_input_mask:0`."""
    (found,) = [INPUTS[name] for name in INPUTS if name in tensor]
    return found


def _file(name: str, kind: int) -> Table:
    return {0: name, 2: kind}


def _tensor(name: str, files: Sequence[Table] = ()) -> Table:
    return {0: name} | ({6: [*files]} if files else {})


def _written(builder: flatbuffers.Builder, table: Table) -> int:
    """Writes a table and all below it; returns where it is."""
    # What a table points to is written before it.
    below = {
        field: _offset(builder, value)
        for field, value in table.items()
        if not isinstance(value, int)
    }
    builder.StartObject(max(table) + 1)
    for field, value in table.items():
        if field in below:
            builder.PrependUOffsetTRelativeSlot(field, below[field], 0)
        else:
            builder.PrependUint8Slot(field, value, 0)
    return builder.EndObject()


def _offset(builder: flatbuffers.Builder, value: Any) -> int:
    if isinstance(value, str):
        return builder.CreateString(value)
    if isinstance(value, Mapping):
        return _written(builder, value)
    places = [_written(builder, table) for table in value]
    builder.StartVector(4, len(places), 4)
    for place in reversed(places):
        builder.PrependUOffsetTRelative(place)
    return builder.EndVector()
