"""What a fine-tuned model answers, from strings on, as graph functions.

    classification  text, or text_a and text_b [B]
                    -> label, probability [B], labels, probabilities [B, n]
    multi_label     the same -> labels, probabilities, chosen [B, n]
    regression      the same -> score [B], and nearest [B] on a scale
    sentence_vectors  text [B] -> embedding [B, H] (see `vector_graph`)

The answers are those of `prediction.TunedModel`: the same cuts, the same
length, the labels by name. Labels stand in every row, because TF Serving's row
format wants the batch first in every output.
"""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from albert_tf2.prediction.tuned_model import TunedModel
from albert_tf2.tasks import base, multi_label
from albert_tf2.tasks.regression import Regression
from albert_tf2.tasks.text_task import TextTask

from .preprocessor import Preprocessor

Tensors = dict[str, tf.Tensor]
# From logits [B, n] to answers.
Answers = Callable[[tf.Tensor], Tensors]


def text_names(task: base.Task) -> tuple[str, ...]:
    """Returns the names of a text task's inputs."""
    assert isinstance(task, TextTask), "the kind was looked at"
    return ("text_a", "text_b") if task.pairs else ("text",)


def text_answers(task: base.Task) -> Answers:
    """Returns what the logits of a text task mean."""
    if task.kind == base.VECTORS:
        return lambda vectors: {"embedding": vectors}
    if task.kind == base.REGRESSION:
        return lambda logits: _scores(task, logits)
    if task.kind == base.MULTI_LABEL:
        return lambda logits: _several(task, logits)
    return lambda logits: _classes(task, logits)


def _in_every_row(labels: Sequence[str], like: tf.Tensor) -> tf.Tensor:
    row = tf.constant([list(labels)])  # [1, n]
    return tf.tile(row, [tf.shape(like)[0], 1])


def _classes(task: base.Task, logits: tf.Tensor) -> Tensors:
    probabilities = tf.nn.softmax(logits)
    best = tf.argmax(logits, axis=-1)
    return {
        "label": tf.gather(tf.constant(list(task.labels)), best),
        "probability": tf.reduce_max(probabilities, axis=-1),
        "labels": _in_every_row(task.labels, logits),
        "probabilities": probabilities,
    }


def _several(task: base.Task, logits: tf.Tensor) -> Tensors:
    probabilities = tf.sigmoid(logits)
    return {
        "labels": _in_every_row(task.labels, logits),
        "probabilities": probabilities,
        "chosen": probabilities >= multi_label.THRESHOLD,
    }


def _scores(task: base.Task, logits: tf.Tensor) -> Tensors:
    assert isinstance(task, Regression)
    score = logits[:, 0] * task.spread + task.mean
    answers = {"score": score}
    if task.steps:
        steps = np.array(task.steps, np.int32)
        gaps = tf.abs(score[:, tf.newaxis] - tf.cast(steps, tf.float32))
        answers["nearest"] = tf.gather(steps, tf.argmin(gaps, axis=-1))
    return answers


class TextGraph(tf.Module):
    """Texts or pairs to answers: the root of a serving SavedModel."""

    def __init__(self, tuned: TunedModel):
        super().__init__(name="serving")
        self._answers = text_answers(tuned.task)
        self._seq_length = tuned.lengths.max_seq_length
        assert isinstance(tuned.task, TextTask), "`text_answers` looked"
        self.input_names = text_names(tuned.task)
        model = tuned.model
        # A plain function: a Keras model as an attribute would be saved with
        # traces of its own.
        self._logits = lambda inputs: model(inputs, training=False)
        self.kept = list(model.variables)
        self.preprocessor = Preprocessor(
            tuned.loaded.tokenizer, seq_length=self._seq_length
        )

    def specs(self) -> list[tf.TensorSpec]:
        """Returns the inputs of `answer`."""
        return [
            tf.TensorSpec([None], tf.string, name) for name in self.input_names
        ]

    def answer(self, *texts: tf.Tensor) -> Tensors:
        """Answers string [B], or two of them."""
        inputs = self.preprocessor.rows(texts, self._seq_length)
        return self._answers(self._logits(inputs))

    def requests(self, *, large: bool) -> dict[str, list]:
        """Returns what warms a server up, see `serving.write_warmup`."""
        texts = ["今天天气很好，" * 30] * 32 if large else ["今天天气很好"]
        return dict.fromkeys(self.input_names, texts)
