"""What is added to the embedded words of a pass.

Adversarial training (1605.07725) moves the words of a text a little, to where
the model is most easily wrong. `Embeddings` asks here for what to add; outside
`added` there is nothing, and the graph is what it was.

    with perturbation.added(attack):  # float32 [B*T, E]
        outputs = model(inputs, training=True)
"""

import contextlib
import contextvars
from collections.abc import Iterator

import tensorflow as tf

_ADDED: contextvars.ContextVar[tf.Tensor | None] = contextvars.ContextVar(
    "added_to_words", default=None
)


@contextlib.contextmanager
def added(attack: tf.Tensor | None) -> Iterator[None]:
    """Adds to the words of what is traced in this block; None adds nothing."""
    token = _ADDED.set(attack)
    try:
        yield
    finally:
        _ADDED.reset(token)


def apply(words: tf.Tensor) -> tf.Tensor:
    """Returns embedded words, [B*T, E], with what is added to them."""
    attack = _ADDED.get()
    return words if attack is None else words + tf.cast(attack, words.dtype)
