"""What a model for sentence vectors answers, from strings on.

    serving_default, embed  text [B]                -> embedding [B, H]
    similarity              text_a [B], text_b [B]  -> similarity [B], -1 .. 1

An embedding has length 1, so that the dot product of two is their similarity.
"""

from typing import Any

import tensorflow as tf

from .serving import cosine
from .task_graphs import Tensors, TextGraph


class VectorGraph(TextGraph):
    """Texts to vectors: the root of a serving SavedModel."""

    def similarity(self, text_a: tf.Tensor, text_b: tf.Tensor) -> Tensors:
        """Compares string [B] with string [B]."""
        both = self.answer(tf.concat([text_a, text_b], axis=0))["embedding"]
        count = tf.shape(text_a)[0]
        return {"similarity": cosine(both[:count], both[count:])}

    def more_signatures(self) -> dict[str, Any]:
        """Returns what is published beside `answer`, by name."""
        specs = [tf.TensorSpec([None], tf.string, f"text_{x}") for x in "ab"]
        compare = tf.function(
            self.similarity, autograph=False
        ).get_concrete_function(*specs)
        return {"similarity": compare}
