"""Feeding a task's model: batches to replicas, logits back in order."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from albert_tf2.finetuning.model import ABSENT, TaskModel
from albert_tf2.model import fusion
from albert_tf2.tasks import base
from albert_tf2.tasks.encoding import (
    LENGTH_MULTIPLE,
    Example,
    collate,
    prediction_order,
)
from albert_tf2.tasks.tagging import IGNORED


def label_arrays(
    kind: str,
    examples: Sequence[Example],
    *,
    size: int,
    length: int,
    class_weights: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Returns `labels` and `weights` of a batch (see `model.loss_sum`).

    Args:
        kind: One of the kinds in `base`.
        examples: At most `size` examples, all with labels.
        size: B; missing examples have weight 0.
        length: T.
        class_weights: [n], for classification.
    """
    if kind in (base.MULTI_LABEL, base.REGRESSION, base.VECTORS):
        return _number_arrays(examples, size)
    shape = {base.TAGGING: [size, length], base.SPAN: [size, 2]}.get(
        kind, [size]
    )
    labels = np.full(shape, IGNORED, np.int32)
    for b, example in enumerate(examples):
        if kind == base.TAGGING:
            labels[b, : len(example.label)] = example.label
        else:
            labels[b] = example.label
    weights = (labels != IGNORED).astype(np.float32)
    if class_weights is not None:
        weights *= class_weights[np.maximum(labels, 0)]
    return {"labels": labels, "weights": weights}


def _number_arrays(
    examples: Sequence[Example], size: int
) -> dict[str, np.ndarray]:
    """Returns float32 `labels` and `weights`: [B], or [B, n] for n labels."""
    given = np.array([example.label for example in examples], np.float32)
    labels = np.zeros([size, *given.shape[1:]], np.float32)
    labels[: len(examples)] = given
    weights = np.zeros_like(labels)
    weights[: len(examples)] = 1.0
    return {"labels": labels, "weights": weights}


def logit_array(
    task: base.Task,
    logits: Sequence[np.ndarray],
    *,
    size: int,
    length: int,
) -> np.ndarray:
    """Returns a teacher's logits of a batch as the model gives its own.

    Args:
        task: What is learned.
        logits: Of at most `size` examples; [n] or, token by token, [t, n].
        size: B; missing examples have logits of 0, and no weight.
        length: T.

    Returns:
        Float32 [B, n]; [B, C] for choices, [B, T, n] token by token. What a
        row does not have, a choice or an answer's place, is `ABSENT`.
    """
    per_token = task.kind in (base.TAGGING, base.SPAN)
    n = task.choices if task.kind == base.CHOICE else task.num_outputs
    shape = [size, *([length] if per_token else []), n]
    array = np.zeros(shape, np.float32)
    for b, values in enumerate(logits):
        if task.kind in (base.CHOICE, base.SPAN):
            array[b] = ABSENT
        array[b, : len(values)] = values
    return array


def length_multiple() -> int:
    """Returns what lengths are rounded up to a multiple of, for a step's sake.

    On CPUs a step that is traced for any length computes each as it is, and
    of the rounded rows of short texts a third was padding. Accelerators
    compute in tiles.
    """
    return 1 if fusion.suits_devices() else LENGTH_MULTIPLE


class OnReplicas:
    """Callable: a global batch, arrays [B, ...] -> each replica's result.

    Every worker of a cluster draws the same global batch and keeps its own
    rows, so one replica and many see the same ones. Scalars go to all.

    It is traced once, with all sizes but B left open. A program that is
    traced for one length rounds otherwise than one for any; traced for each,
    a run's last bits would depend on which lengths came first, and a resumed
    run meets them in another order.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        function: Callable[..., tf.Tensor],
        *,
        fixed: bool = False,
    ):
        """Traces nothing yet.

        Args:
            strategy: The devices.
            function: From a replica's batch, and what else is given, to its
                result.
            fixed: Whether all batches have the sizes of the first (TPU).
        """
        self.strategy, self.function = strategy, function
        self.fixed = fixed
        self._traced: Any = None

    def __call__(self, batch: dict[str, np.ndarray], *more: tf.Tensor):
        if self._traced is None:
            signature = [
                {name: self._spec(array) for name, array in batch.items()},
                *map(tf.TensorSpec.from_tensor, more),
            ]
            self._traced = tf.function(
                self._run, input_signature=signature, autograph=False
            )
        return self._traced(batch, *more)

    def _spec(self, array: np.ndarray) -> tf.TensorSpec:
        sizes = array.shape if self.fixed else [None] * array.ndim
        return tf.TensorSpec(sizes, array.dtype)

    def _run(self, batch, *more):
        replicas = self.strategy.num_replicas_in_sync

        def part(context):
            index = context.replica_id_in_sync_group
            return {
                name: values
                if values.shape.rank == 0
                else tf.split(values, replicas)[index]
                for name, values in batch.items()
            }

        parts = self.strategy.experimental_distribute_values_from_function(part)
        return self.strategy.run(self.function, args=(parts, *more))


def make_predict_step(
    model: TaskModel, strategy: tf.distribute.Strategy
) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    """Returns a function from the inputs of a global batch to its logits."""

    def logits(inputs):
        with fusion.known_chains(fusion.suits_devices()):
            return model(inputs, training=False)

    step = OnReplicas(strategy, logits)

    def predict(inputs):
        # From all workers of a cluster too, in the order of the rows.
        return strategy.gather(step(inputs), axis=0).numpy()

    return predict


def predict_logits(
    predict_step: Callable[[dict[str, np.ndarray]], np.ndarray],
    examples: Sequence[Example],
    *,
    task: base.Task,
    batch_size: int,
    replicas: int = 1,
    length: int | None = None,
    positions: int | None = None,
) -> list[np.ndarray]:
    """Returns the logits of each example, in the order given.

    Args:
        predict_step: From `make_predict_step`.
        examples: What to predict.
        task: Tells the number of choices, and whether logits are per token.
        batch_size: Rows in a step.
        replicas: How many replicas share a step.
        length: A fixed T (TPU); None pads each batch to its longest.
        positions: See `collate`.
    """
    per_token = task.kind in (base.TAGGING, base.SPAN)
    logits: list[np.ndarray] = [np.zeros(0)] * len(examples)
    for indices in prediction_order(examples, batch_size):
        # The last batch shrinks, to what the replicas can share.
        size = -(-len(indices) // replicas) * replicas
        part = [examples[i] for i in indices]
        values = predict_step(
            collate(
                part,
                size=size,
                choices=task.choices,
                length=length,
                multiple=length_multiple(),
                positions=positions,
            )
        )
        for i, example, row in zip(indices, part, values, strict=False):
            logits[i] = row[: example.length] if per_token else row
    return logits
