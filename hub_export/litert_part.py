"""The files that `predict --engine litert` runs: several texts in one row.

    litert/1/model_fp32.tflite           the same answers as TensorFlow's
    litert/1/model_dynamic_int8.tflite   faster, and a little off

A row holds texts side by side, as packed rows of pre-training do, so that no
token is padding and one file serves every length and any number of texts:

    input_word_ids, input_type_ids  int32 [N]
    input_pair_ids      int32 [N]  0 padding, k = of the k-th text
    input_position_ids  int32 [N]  restarts with each text
    cls_positions       int32 [K]  where texts begin

    ->  sequence_output [N, H], pooled_output [K, H], and task_logits [K, n]
        or, of a model that tags or finds answers, [N, n]

A shallow model that is tuned for whole texts has a second signature, `texts`,
of the same weights. It gives pooled_output and task_logits, and its last layer
is computed where texts begin alone. An interpreter keeps each layer's weights
once more for it, so deeper models, which gain less, have none.

There is one row, so every shape but N and K is fixed when the interpreter is
told them, and XNNPACK computes all of the network. Files for phones, which
take one text of a fixed length, are in `tflite_variants` and `task_tflite`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from albert_tf2 import features, paths
from albert_tf2.errors import UserError
from albert_tf2.finetuning.model import TaskHead
from albert_tf2.model import pooling
from albert_tf2.model.albert import AlbertEncoder
from albert_tf2.prediction import litert, litert_file
from albert_tf2.prediction.tuned_model import TunedModel
from albert_tf2.tasks.base import TASK_FILE
from albert_tf2.tasks.encoding import Example, Packed, collate, pack
from albert_tf2.text.tokenization import Tokenizer

from . import quantization, tflite, tflite_archive
from .task_probes import LONG, PROBES

PRECISIONS = ("fp32", "dynamic_int8")
# In fp32 nothing but the order of additions is another.
TOLERANCE = 1e-5
# Of four layers it saves a fifth, of twelve a fifteenth.
SHALLOW = 6


def row_functions(
    encoder: AlbertEncoder, head: TaskHead | None, kind: str | None
) -> tuple[tflite.Function, dict[str, tflite.Function]]:
    """Returns what a file computes, and further signatures (see the module).

    Args:
        encoder: The encoder.
        head: Of a fine-tuned model; None has none.
        kind: What that was tuned for.
    """

    def tokens(inputs: tflite.Inputs) -> dict[str, tf.Tensor]:
        outputs = encoder(_row(inputs), training=False)
        sequence = tf.squeeze(outputs[features.SEQUENCE_OUTPUT], 0)  # [N, H]
        first = tf.gather(sequence, inputs[features.CLS_POSITIONS])  # [K, H]
        found = {
            features.SEQUENCE_OUTPUT: sequence,
            features.POOLED_OUTPUT: encoder.pool(first),
        }
        return found | _logits(found, head, kind)

    def texts(inputs: tflite.Inputs) -> dict[str, tf.Tensor]:
        first = encoder.at_positions(
            _row(inputs),
            inputs[features.CLS_POSITIONS][tf.newaxis],
            training=False,
        )  # [1, K, H]
        found = {features.POOLED_OUTPUT: encoder.pool(tf.squeeze(first, 0))}
        return found | _logits(found, head, kind)

    of_texts = head is not None and kind not in litert_file.PER_TOKEN
    if of_texts and encoder.config.num_hidden_layers <= SHALLOW:
        return tokens, {litert_file.TEXTS: texts}
    return tokens, {}


def _row(inputs: tflite.Inputs) -> tflite.Inputs:
    names = litert_file.TOKEN_INPUTS
    row = {name: inputs[name][tf.newaxis] for name in names}  # [1, N]
    row[features.INPUT_MASK] = tf.minimum(row[features.INPUT_PAIR_IDS], 1)
    return row


def _logits(outputs: Mapping[str, Any], head, kind) -> dict[str, tf.Tensor]:
    if head is None:
        return {}
    read = features.POOLED_OUTPUT
    if kind in litert_file.PER_TOKEN:
        read = features.SEQUENCE_OUTPUT
    return {litert_file.TASK_LOGITS: head(outputs[read], training=False)}


def export_litert(
    encoder: AlbertEncoder,
    tokenizer: Tokenizer,
    export_dir: paths.PathLike,
    *,
    tuned: TunedModel | None = None,
    overwrite: bool = False,
) -> Iterator[str]:
    """Writes a model in both precisions.

    Args:
        encoder: The encoder.
        tokenizer: Its own.
        export_dir: The new folder.
        tuned: The fine-tuned model that the encoder is of.
        overwrite: Replace an existing folder.

    Yields:
        A line per file: its size, and how far from TensorFlow it answers.

    Raises:
        UserError: If a file in float32 answers otherwise than TensorFlow.
    """
    head, kind, more = None, None, {}
    if tuned is not None:
        head, kind = tuned.model.head, tuned.task.kind
        facts = {**tuned.facts(), **tuned.describe()}
        more[TASK_FILE] = tflite_archive.json_bytes(facts)
    function, others = row_functions(encoder, head, kind)
    specs = {
        name: tf.TensorSpec([None], tf.int32, name)
        for name in (*litert_file.TOKEN_INPUTS, features.CLS_POSITIONS)
    }
    probes = _probes(tokenizer, encoder.config.max_position_embeddings)
    expected = _expected(probes, encoder, head, kind)
    with paths.atomic_directory(export_dir, overwrite=overwrite) as folder:
        for precision in PRECISIONS:
            # In blocks it took 1.04 to 1.10 of the time, from 8 to 128 tokens.
            network = tflite.convert(
                function,
                specs,
                precision=precision,
                blocked=False,
                others=others,
            )
            metadata = {
                "precision": precision,
                "inputs": tflite_archive.specs_described(specs),
                "config": encoder.config.to_dict(),
                **litert_file.seal(network),
            }
            path = folder / litert_file.file_name(precision)
            tflite_archive.write(path, network, metadata, tokenizer, more)
            yield _compared(path, precision, probes, expected)


def _probes(tokenizer: Tokenizer, positions: int) -> list[Packed]:
    """Returns texts of many lengths, the longest that the model takes too."""
    segments = [tokenizer.tokenize(text).ids for text in [*PROBES, LONG]]
    return [
        pack(texts, tokenizer.vocabulary, positions)
        for texts in [*([ids] for ids in segments), segments[:2]]
    ]


def _expected(probes, encoder, head, kind) -> dict[str, list[np.ndarray]]:
    """Returns what the model says of each text alone, in TensorFlow."""
    found: dict[str, list[np.ndarray]] = {}
    for probe in probes:
        inputs = collate([Example(0, (probe,))], size=1, length=len(probe.ids))
        inputs = {name: tf.constant(array) for name, array in inputs.items()}
        outputs = encoder(inputs, training=False)
        vector = pooling.pooled(outputs, inputs[features.INPUT_MASK], "mean")
        values = {
            "mean": vector,
            "pooled": outputs[features.POOLED_OUTPUT],
            **_logits(outputs, head, kind),
        }
        for name, value in values.items():
            found.setdefault(name, []).append(value.numpy()[0])
    return found


def _compared(path, precision, probes, expected) -> str:
    """Asks a file what TensorFlow was asked; returns the line of it."""
    model = litert.RowModel(litert_file.read(path))
    found: dict[str, Any] = {
        name: model.vectors(probes, name) for name in ("mean", "pooled")
    }
    if (wanted := expected.get(litert_file.TASK_LOGITS)) is not None:
        per_token = wanted[0].ndim > 1
        found[litert_file.TASK_LOGITS] = model.logits(
            probes, per_token=per_token
        )
    worst = max(
        float(np.abs(a - b).max()) / max(1.0, float(np.abs(a).max()))
        for name, values in expected.items()
        for a, b in zip(values, found[name], strict=True)
    )
    line = f"{path.name}: {path.stat().st_size / 1e6:.1f} MB, "
    if precision != "fp32":
        lost = quantization.loss(np.stack(expected["mean"]), found["mean"])
        return f"{line}{lost}"
    if not worst <= TOLERANCE:
        raise UserError(
            f"{path.name} answers otherwise than TensorFlow: by {worst:.1e}; "
            "nothing was written"
        )
    return f"{line}differs from TensorFlow's by {worst:.1e} at most"
