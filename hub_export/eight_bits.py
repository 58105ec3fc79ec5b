"""ALBERT written so that eight bits suffice: for `tflite.convert`.

A tensor of eight bits has 256 levels between its least and its largest value.
Trained models have values that take them all: at [CLS] and [SEP], three
channels of the starter's feed-forward output reach 250, where the others stay
below 25 and are 1 on average. One of those levels is then as large as what
most channels say. None of the following changes what is computed in float32:

- each row of the word table, and each channel of the feed-forward output, is
  divided by its own largest value, and multiplied by it again in float32;
- the few feed-forward units with the largest outputs are products of their
  own, and so are those that hardly ever answer;
- residual sums, LayerNorm, sums over tokens, the projection after the
  embeddings, attention's values and the output of those few units stay in
  float32. They are a tenth of the arithmetic; all other products of the layers
  are of eight bits.

What each is worth stands in docs/log.md.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from albert_tf2.model import layers

# TFLite's names of what stays in float32. The last three do no arithmetic, but
# stand around the convolutions of `exact_products`: of eight bits, they would
# round what those read and say.
FLOAT_OPS = (
    "ADD",
    "CONV_2D",
    "MEAN",
    "MUL",
    "RSQRT",
    "SQUARED_DIFFERENCE",
    "SUB",
    "SUM",
    "ONE_HOT",
    "RESHAPE",
    "STRIDED_SLICE",
)
# Projections whose rounding costs most for what they compute: that after the
# embeddings, which all layers read, and attention's values.
EXACT_LAYERS = ("embedding_hidden_mapping_in", "value")
# Feed-forward units by their largest output, largest first: where to cut, as
# shares of all.
CUTS = (1 / 40, 1 / 4)
# Of the largest channel: a channel below is not stretched further, because it
# was never asked to speak on the samples.
LEAST_RANGE = 1e-3
LEVELS = 2**20  # of a row's range, in shares of the largest

Sample = dict[str, Any]


@contextlib.contextmanager
def even_words() -> Iterator[None]:
    """Traces word tables as rows of equal range, and their ranges."""
    block: Any = layers.Embeddings
    whole = block.look_up

    def look_up(self: layers.Embeddings, word_ids: tf.Tensor) -> tf.Tensor:
        with tf.init_scope():  # out of the graph: both are constants in it
            table = self.word_embeddings.numpy()
        ranges = np.abs(table).max(axis=1, keepdims=True)
        largest = ranges.max() or 1.0
        # As integers: the converter would give numbers eight bits, too. And
        # as rows of the largest range: it gives rows that of their products.
        shares = np.maximum(np.ceil(ranges / largest * LEVELS), 1)
        rows = (table / (shares / LEVELS)).astype(np.float32)
        shares = tf.gather(tf.constant(shares, tf.int32), word_ids)
        words = tf.gather(tf.constant(rows), word_ids)
        return words * (tf.cast(shares, tf.float32) / LEVELS)

    block.look_up = look_up
    try:
        yield
    finally:
        block.look_up = whole


@contextlib.contextmanager
def exact_products() -> Iterator[None]:
    """Traces the segments' vectors and `EXACT_LAYERS` in float32.

    The converter takes operations out by kind alone, and as products these
    would be some of all products: so they are convolutions. The segments'
    would even be an EMBEDDING_LOOKUP, which is wrong in eight bits: its
    kernel hands out the table's bytes as they are, and they are read as
    numbers of the output's range, which is another.
    """
    embeddings: Any = layers.Embeddings
    dense: Any = layers.Dense
    whole_types, whole_call = embeddings.look_up_types, dense.call

    def look_up_types(self: layers.Embeddings, ids: tf.Tensor) -> tf.Tensor:
        rows = tf.one_hot(ids, self.config.type_vocab_size)
        return _as_convolution(rows, self.token_type_embeddings)

    def call(self: layers.Dense, rows: tf.Tensor) -> tf.Tensor:
        if self.name not in EXACT_LAYERS:
            return whole_call(self, rows)
        return _as_convolution(rows, self.kernel) + self.bias

    embeddings.look_up_types, dense.call = look_up_types, call
    try:
        yield
    finally:
        embeddings.look_up_types, dense.call = whole_types, whole_call


def _as_convolution(rows: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Returns rows @ kernel."""
    found = tf.nn.conv2d(rows[None, None], kernel[None, None], 1, "VALID")
    return found[0, 0]


@contextlib.contextmanager
def even_feed_forward(
    function: Callable[[dict[str, tf.Tensor]], Any], samples: Sequence[Sample]
) -> Iterator[None]:
    """Traces every `FeedForwardBlock` with channels of equal range.

    Args:
        function: What will be traced; it runs on the samples first.
        samples: Real inputs, by which the ranges are known.
    """
    blocks: dict[int, _Block] = {}

    def call(self, hidden, training=None):
        assert not training, "TFLite models are for inference"
        return blocks.setdefault(id(self), _Block(self))(hidden)

    layer: Any = layers.FeedForwardBlock
    whole = layer.call
    layer.call = call
    try:
        for step in (_Block.group_units, _Block.freeze):
            for sample in samples:
                function({n: tf.constant(v) for n, v in sample.items()})
            for block in blocks.values():
                step(block)
        yield
    finally:
        layer.call = whole


class _Block:
    """A feed-forward block whose ranges are measured, and then evened."""

    def __init__(self, layer: layers.FeedForwardBlock):
        self._layer = layer
        units = layer.config.intermediate_size
        self._groups = [np.arange(units)]
        self._answers = np.zeros(units, np.float32)  # largest of each unit
        self._ranges = [np.zeros(layer.config.hidden_size, np.float32)]
        self._measures = True

    def group_units(self) -> None:
        """Cuts the units into groups by their largest outputs."""
        order = np.argsort(-self._answers, kind="stable")
        edges = [round(share * len(order)) for share in CUTS]
        self._groups = np.split(order, edges)
        self._ranges = [np.zeros_like(self._ranges[0]) for _ in self._groups]

    def freeze(self) -> None:
        """Ends the measuring: ranges are used from now on."""
        self._measures = False
        for ranges in self._ranges:
            least = LEAST_RANGE * ranges.max() or 1.0
            np.maximum(ranges, least, out=ranges)

    def __call__(self, hidden: tf.Tensor) -> tf.Tensor:
        """Does what `FeedForwardBlock.call` does in inference: [B*T, H]."""
        layer = self._layer
        first, second = layer.intermediate_dense, layer.output_dense
        preln = layer.config.ln_type == "preln"
        inputs = layer.layer_norm(hidden) if preln else hidden
        total = hidden
        for number, units in enumerate(self._groups):
            inner = layer.activation(
                tf.matmul(inputs, tf.gather(first.kernel, units, axis=1))
                + tf.gather(first.bias, units)
            )
            kernel = tf.gather(second.kernel, units)
            bias = second.bias if number == 0 else tf.zeros_like(second.bias)
            ranges = self._ranges[number]
            if self._measures:
                output = tf.matmul(inner, kernel) + bias
                _keep_largest(ranges, output)
                self._answers[units] = np.maximum(
                    self._answers[units], np.abs(inner).max(axis=0)
                )
                total += output
            else:
                # Few units, and the loudest: hardly any work, most of the loss.
                product = _as_convolution if number == 0 else tf.matmul
                output = product(inner, kernel / ranges) + bias / ranges
                # Not `total + output * ranges`: the converter would multiply
                # the weights by it again.
                total = (total * (1 / ranges) + output) * ranges
        return total if preln else layer.layer_norm(total)


def _keep_largest(ranges: np.ndarray, output: tf.Tensor) -> None:
    np.maximum(ranges, np.abs(output).max(axis=0), out=ranges)


def convert(
    converter: tf.lite.TFLiteConverter, samples: Sequence[Sample]
) -> bytes:
    """Converts to eight bits, with `FLOAT_OPS` in float32.

    Args:
        converter: Of a model traced in the two contexts above.
        samples: Real inputs, by which the ranges of all tensors are chosen.
    """
    converter.representative_dataset = lambda: iter(samples)
    # The only public way to say which operations stay in float32.
    mixed = tf.lite.experimental.QuantizationDebugger(
        converter=converter,
        debug_dataset=lambda: iter(samples[:1]),
        debug_options=tf.lite.experimental.QuantizationDebugOptions(
            denylisted_ops=list(FLOAT_OPS)
        ),
    )
    return mixed.get_nondebug_quantized_model()
