"""A fine-tuned model's head on its way between formats.

The head is one product, `hidden W^T + b`, behind a LayerNorm in pre-LN models;
what it reads depends on the kind of task (see `finetuning.model`). What the
numbers mean stands in `task.json`: labels, lengths, the scale of scores. It
goes along wherever this project reads the weights back.
"""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from albert_tf2 import features, paths
from albert_tf2.checkpoints.weights import Weights
from albert_tf2.errors import UserError, shown
from albert_tf2.model import layers
from albert_tf2.settings import POOLINGS

TASK_FILE = "task.json"
LABELS_FILE = "labels.txt"
# The name of its output in certificates and in ONNX.
LOGITS = "task_logits"
MEANINGS = PROBABILITIES, SCORE = "probabilities", "score"
WEIGHTS, BIAS = "output_weights", "output_bias"
GAMMA, BETA = "loss/LayerNorm/gamma", "loss/LayerNorm/beta"
# Kinds whose head reads every token, so that no pooler is needed.
PER_TOKEN = ("tagging", "span")
# The kind that has no head: what counts is the vector of a text.
VECTORS = "sentence_vectors"
EMBEDDING = "embedding"


def has_head(found: Weights) -> bool:
    """Whether the weights are those of a fine-tuned model."""
    return WEIGHTS in found.task_arrays


def pooling_of(found: Weights) -> str | None:
    """Returns how a model for sentence vectors pools; None for others."""
    if found.task_kind != VECTORS:
        return None
    return found.task.get("pooling")


def embedding(found: Weights, outputs: Mapping[str, Any], input_mask: Any):
    """Returns the vectors of a model for sentence vectors: float32 [B, H].

    Args:
        found: Its weights.
        outputs: Of its encoder: arrays, or tensors of a graph.
        input_mask: int32 [B, T].
    """
    from albert_tf2.model import pooling

    return pooling.sentence_vector(outputs, input_mask, found.task["pooling"])


def has_layer_norm(found: Weights) -> bool:
    """Whether the head begins with a LayerNorm."""
    return GAMMA in found.task_arrays


def logits(found: Weights, outputs: Mapping[str, Any]):
    """Returns what the head gives: float32 [B, n], per token [B, T, n].

    Args:
        found: The fine-tuned model's weights.
        outputs: Of its encoder: arrays, or tensors of a graph.
    """
    import tensorflow as tf

    per_token = found.task_kind in PER_TOKEN
    hidden = tf.convert_to_tensor(
        outputs[
            features.SEQUENCE_OUTPUT if per_token else features.POOLED_OUTPUT
        ]
    )
    arrays = found.task_arrays
    if has_layer_norm(found):
        mean, variance = tf.nn.moments(hidden, -1, keepdims=True)
        scale = tf.math.rsqrt(variance + layers.LAYER_NORM_EPSILON)
        hidden = (hidden - mean) * scale * arrays[GAMMA] + arrays[BETA]
    product = tf.tensordot(hidden, tf.constant(arrays[WEIGHTS].T), 1)
    return product + arrays[BIAS]


def meaning(found: Weights, logits: Any) -> dict[str, Any]:
    """Returns what the logits of a graph mean, where that is a formula.

    `probabilities` of labels or tags, or `score`; a span or a choice needs
    more than one row or token.
    """
    import tensorflow as tf

    kind = found.task_kind
    if kind in ("classification", "tagging"):
        return {PROBABILITIES: tf.nn.softmax(logits)}
    if kind == "multi_label":
        return {PROBABILITIES: tf.sigmoid(logits)}
    if kind == "regression":
        mean, spread = _score_scale(found)
        return {SCORE: logits[:, 0] * spread + mean}
    return {}


def _score_scale(found: Weights) -> tuple[float, float]:
    """Returns mean and spread of the scores that a head learned."""
    return found.task.get("mean", 0.0), found.task.get("spread", 1.0)


def written_task(found: Weights) -> dict[str, Any]:
    """Returns what `task.json` is to hold; empty where nothing is known.

    Raises:
        UserError: For labels that this project has no task for: to leave
            them out silently would make them numbers.
    """
    if has_head(found) and found.task_labels and not found.task:
        raise UserError(
            f"{found.source} has a head for {found.task_kind} with the labels "
            f"{', '.join(found.task_labels[:4])}, ..., for which there is no "
            "task here (tags must be O, B-x and I-x): only --to huggingface "
            "keeps it"
        )
    return dict(found.task)


def write_task(found: Weights, folder: Path) -> None:
    """Writes `task.json`, if there is anything to say."""
    task = written_task(found)
    if task:
        paths.write_json(folder / TASK_FILE, task)


def write_labels(found: Weights, folder: Path) -> None:
    """Writes `labels.txt`, for programs that read no JSON."""
    if found.task_labels:
        text = "".join(f"{label}\n" for label in found.task_labels)
        (folder / LABELS_FILE).write_text(text, encoding="utf-8")


def read_task(found: Weights, task_file: Path) -> Weights:
    """Adds what a `task.json` beside the weights says of their head."""
    if not task_file.is_file():
        return found
    task = paths.read_json(task_file, dict)
    kind, labels = task.get("kind", found.task_kind), task.get("labels", [])
    if not has_head(found) and kind != VECTORS:
        return found
    outputs = len(found.task_arrays[BIAS]) if has_head(found) else 0
    fits = {
        "kind": isinstance(kind, str),
        "labels": isinstance(labels, list)
        and all(isinstance(label, str) for label in labels)
        and len(labels) in (0, outputs),
        "mean": _is_number(task.get("mean", 0.0)),
        "spread": _is_number(task.get("spread", 1.0)),
        "pooling": kind != VECTORS or task.get("pooling") in POOLINGS,
    }
    for key, is_right in fits.items():
        if not is_right:
            raise UserError(
                f"{task_file}: `{key}` is damaged, it is "
                f"{shown(task.get(key))}: fine-tune again, or put the file "
                "back that was written with the model"
            )
    return dataclasses.replace(
        found, task=task, task_kind=kind, task_labels=tuple(labels)
    )


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def rescaled(found: Weights) -> Weights:
    """Puts the scale of scores into the head, for programs that know none.

    A head for scores gives (score - mean) / spread; the result gives scores.
    """
    mean, spread = _score_scale(found)
    if found.task_kind != "regression" or (mean, spread) == (0.0, 1.0):
        return found
    arrays = dict(found.task_arrays)
    arrays[WEIGHTS] = np.asarray(arrays[WEIGHTS] * spread, np.float32)
    arrays[BIAS] = np.asarray(arrays[BIAS] * spread + mean, np.float32)
    return dataclasses.replace(
        found,
        task_arrays=arrays,
        task={**found.task, "mean": 0.0, "spread": 1.0},
    )
