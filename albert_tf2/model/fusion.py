"""Chains of element-wise operations as single passes over memory, on CPUs.

A small model's step on a CPU is half matrix products, which oneDNN runs near
the machine's peak, and half what lies between them: TensorFlow's own kernels
read and write memory once per operation. XLA compiles such a chain into one
pass; compiling the whole step would take the products from oneDNN too, and
loses more than it gains. So the chains alone are compiled.

Training steps switch this on (`single_passes`); an exported graph never holds
a compiled function, nor a gradient that only this program knows.

Where nothing is differentiated, no compiler is needed, and so no program for
each length: TensorFlow's own graph optimizer puts some chains into one kernel
of oneDNN, if they are written as it knows them. Steps that predict write them
so (`known_chains`).
"""

import contextlib
import contextvars
import functools
import math
import re
from pathlib import Path

import tensorflow as tf

_ENABLED = contextvars.ContextVar("single_passes", default=False)
_KNOWN_CHAINS = contextvars.ContextVar("known_chains", default=False)
# gelu(x) = x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))
_SLOPE, _CUBIC = math.sqrt(2 / math.pi), 0.044715


@contextlib.contextmanager
def single_passes(enabled: bool = True):
    """Fuses what is traced in this block, in this thread."""
    token = _ENABLED.set(enabled)
    try:
        yield
    finally:
        _ENABLED.reset(token)


@contextlib.contextmanager
def known_chains(enabled: bool = True):
    """Writes what is traced in this block as oneDNN has kernels for it."""
    token = _KNOWN_CHAINS.set(enabled and _has_onednn())
    try:
        yield
    finally:
        _KNOWN_CHAINS.reset(token)


@functools.cache
def _has_onednn() -> bool:
    """Says whether TensorFlow computes with oneDNN in this process.

    Unless told by `TF_ENABLE_ONEDNN_OPTS` it does so on some processors alone
    (AVX-512 with VNNI, AMX, ...), and has no public way to say so. Without it
    the chains would be computed as they are written, which takes longer.
    """
    try:
        from tensorflow.python.util import _pywrap_util_port

        return _pywrap_util_port.IsMklEnabled()
    except (ImportError, AttributeError):
        return False


@functools.cache
def _has_avx512() -> bool:
    """Says whether the processor has AVX-512, by what Linux tells of it."""
    try:
        facts = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return False
    return re.search(r"^flags\s*:.*\bavx512f\b", facts, re.M) is not None


def suits_devices() -> bool:
    """Says whether this machine computes on CPUs."""
    return not any(map(tf.config.list_logical_devices, ("GPU", "TPU")))


def are_enabled() -> bool:
    """Says whether what is traced now should be fused."""
    return _ENABLED.get()


def parts_biases(dtype: str) -> bool:
    """Says whether products of a type should be traced apart from their biases.

    `add_bias` says why. Where oneDNN does not compute, TensorFlow's product in
    float32 adds its bias at no cost, and the two together take 0.96 of a step's
    time. In half precision its sum of a bias' gradients is not wide enough.
    """
    return are_enabled() and (_has_onednn() or dtype != "float32")


def is_known_layer_norm(x: tf.Tensor) -> bool:
    """Says whether `known_layer_norm` is one kernel for [N, H] of this shape.

    For a number of rows that is known when it is traced it would not be, nor
    for another type.
    """
    return (
        _KNOWN_CHAINS.get()
        and x.dtype == tf.float32
        and x.shape.rank == 2
        and x.shape[0] is None
        and x.shape[1] is not None
    )


def known_layer_norm(
    x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, *, epsilon: float
) -> tf.Tensor:
    """Returns LayerNorm over the last axis, [N, H], as oneDNN's kernel.

    To the graph optimizer it is the batch normalization of N channels.
    """
    shape = tf.shape(x)
    rows = shape[0]
    nothing = tf.zeros([0])
    normal = tf.raw_ops.FusedBatchNormV3(
        x=tf.reshape(x, [1, rows, shape[1], 1]),
        scale=tf.ones([rows]),
        offset=tf.zeros([rows]),
        mean=nothing,
        variance=nothing,
        epsilon=epsilon,
        data_format="NCHW",
        is_training=True,
    ).y
    return tf.reshape(normal, shape) * gamma + beta


def known_dense_gelu(
    x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor, *, approximate: bool
) -> tf.Tensor | None:
    """Returns gelu(x W + b) as oneDNN's kernel; None where that is no gain.

    Keras' Dense writes the same, and the optimizer does not know it again. On
    processors without AVX-512 oneDNN's GELU is slower than TensorFlow's.
    """
    if not (_KNOWN_CHAINS.get() and _has_avx512() and x.dtype == tf.float32):
        return None
    return tf.nn.gelu(
        tf.nn.bias_add(tf.matmul(x, kernel), bias), approximate=approximate
    )


def _compiled(function):
    return tf.function(function, jit_compile=True, autograph=False)


def _sum_of_rows(x: tf.Tensor) -> tf.Tensor:
    """Returns the sum over the first axis: [H] of [N, H], a bias' gradient.

    A product with ones: half the time of TensorFlow's sum, or of XLA's. It adds
    in float32; with float16, some releases of TensorFlow do not, and overflow.
    """
    wide = tf.cast(x, tf.float32) if x.dtype == tf.float16 else x
    ones = tf.ones([1, tf.shape(x)[0]], wide.dtype)
    return tf.cast(tf.matmul(ones, wide)[0], x.dtype)


@_compiled
def _add_bias(x, bias, dtype):
    return tf.cast(tf.cast(x, tf.float32) + tf.cast(bias, tf.float32), dtype)


def add_bias(
    x: tf.Tensor, bias: tf.Tensor, dtype: tf.DType | None = None
) -> tf.Tensor:
    """Returns x + bias, [N, H] and [H], apart from the product that made x.

    TensorFlow's graph optimizer makes product and bias one kernel, oneDNN's
    inner product. That one knows no AMX: in bfloat16 it took twice the time of
    a product and this pass.

    Args:
        x: float [N, H].
        bias: float [H].
        dtype: Of the result; x's if it is None.
    """

    @tf.custom_gradient
    def add(x, bias):
        def gradient(upstream):
            upstream = tf.cast(upstream, x.dtype)
            return upstream, tf.cast(_sum_of_rows(upstream), bias.dtype)

        return _add_bias(x, bias, dtype or x.dtype), gradient

    return add(x, bias)


@_compiled
def _gelu(x, bias):
    wide = tf.cast(x, tf.float32) + tf.cast(bias, tf.float32)
    inner = _SLOPE * wide * (1.0 + _CUBIC * wide * wide)
    return tf.cast(0.5 * wide * (1.0 + tf.tanh(inner)), x.dtype)


@_compiled
def _gelu_gradient(x, bias, upstream):
    wide = tf.cast(x, tf.float32) + tf.cast(bias, tf.float32)
    square = wide * wide
    bent = tf.tanh(_SLOPE * wide * (1.0 + _CUBIC * square))
    slope = _SLOPE * (1.0 + 3.0 * _CUBIC * square)
    derivative = 0.5 * (1.0 + bent + wide * (1.0 - bent * bent) * slope)
    return tf.cast(derivative * tf.cast(upstream, tf.float32), x.dtype)


@tf.custom_gradient
def gelu(x: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """Returns the tanh form of GELU of x + bias, [N, I]; in float32 inside."""

    def gradient(upstream):
        of_x = _gelu_gradient(x, bias, upstream)
        return of_x, _sum_of_rows(of_x)

    return _gelu(x, bias), gradient


@_compiled
def _nll_gradient(probs, labels, upstream):
    hot = tf.one_hot(labels, probs.shape[-1], dtype=probs.dtype)
    return (probs - hot) * upstream[:, None]


@tf.custom_gradient
def sparse_nll(
    labels: tf.Tensor, logits: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns -log softmax(logits)[label], float32 [N], and the argmax, [N].

    The largest probability is 1 / sum(exp(logits - largest logit)), so the
    logarithm of the normalizer follows from one vectorized softmax, whose
    values the gradient needs anyway.

    Args:
        labels: int [N].
        logits: float32 [N, V].
    """
    probs = tf.nn.softmax(logits)
    guess = tf.argmax(logits, -1, output_type=labels.dtype)

    def at(values, index):
        return tf.gather(values, index, batch_dims=1)

    log_normalizer = at(logits, guess) - tf.math.log(at(probs, guess))
    nll = log_normalizer - at(logits, labels)
    return (nll, guess), lambda upstream, _: (
        None,
        _nll_gradient(probs, labels, upstream),
    )


@_compiled
def _layer_norm(x, gamma, beta, epsilon, summands):
    wide = tf.cast(x, tf.float32)
    for summand in summands:
        wide += tf.cast(summand, tf.float32)
    centered = wide - tf.reduce_mean(wide, -1, keepdims=True)
    variance = tf.reduce_mean(tf.square(centered), -1, keepdims=True)
    scale = tf.math.rsqrt(variance + epsilon)  # [N, 1]
    normal = tf.cast(centered * scale, x.dtype)
    return tf.cast(centered * scale * gamma + beta, x.dtype), normal, scale


@_compiled
def _layer_norm_gradient(normal, scale, gamma, upstream):
    normal = tf.cast(normal, tf.float32)
    upstream = tf.cast(upstream, tf.float32)
    inner = upstream * gamma
    along = tf.reduce_mean(inner * normal, -1, keepdims=True)
    return (
        scale
        * (inner - tf.reduce_mean(inner, -1, keepdims=True) - normal * along),
        tf.reduce_sum(upstream * normal, 0),
        tf.reduce_sum(upstream, 0),
    )


def layer_norm(
    x: tf.Tensor,
    gamma: tf.Tensor,
    beta: tf.Tensor,
    *,
    epsilon: float,
    residual: tf.Tensor | None = None,
    bias: tf.Tensor | None = None,
) -> tf.Tensor:
    """Returns LayerNorm over the last axis, [N, H]; computes in float32.

    With a residual, [N, H], and a bias, [H], that of x + residual + bias.
    """
    summands = () if residual is None else (residual, bias)

    @tf.custom_gradient
    def normalize(x, gamma, beta, *summands):
        output, normal, scale = _layer_norm(x, gamma, beta, epsilon, summands)

        def gradient(upstream):
            of_x, of_gamma, of_beta = _layer_norm_gradient(
                normal, scale, gamma, upstream
            )
            of_x = tf.cast(of_x, x.dtype)
            rest = (of_x, _sum_of_rows(of_x)) if summands else ()
            return of_x, of_gamma, of_beta, *rest

        return output, gradient

    return normalize(
        x, tf.cast(gamma, tf.float32), tf.cast(beta, tf.float32), *summands
    )


@_compiled
def _softmax_gradient(probs, upstream):
    wide, upstream = (tf.cast(t, tf.float32) for t in (probs, upstream))
    along = tf.reduce_sum(wide * upstream, -1, keepdims=True)
    return tf.cast(wide * (upstream - along), probs.dtype)


@tf.custom_gradient
def softmax(scores: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """Returns softmax(scores + bias) over the last axis, in `scores.dtype`.

    Computes in float32. The bias, float32, is a constant.
    """
    # oneDNN's softmax is faster than XLA's.
    probs = tf.nn.softmax(tf.cast(scores, tf.float32) + bias)
    probs = tf.cast(probs, scores.dtype)
    return probs, lambda upstream: (_softmax_gradient(probs, upstream), None)
