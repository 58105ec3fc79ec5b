"""TFLite models of the encoder, for phones and for the fastest CPU serving.

    export_tflite(pretrainer, "tiny.tflite", tokenizer)      # fp32, T = 128
    export_tflite(pretrainer, "tiny_int8.tflite", tokenizer,
                  precision="dynamic_int8", takes_strings=True)

    runner = interpreter("tiny.tflite").get_signature_runner()
    runner(input_word_ids=ids, input_mask=mask, input_type_ids=types)
    runner = interpreter("tiny_int8.tflite", strings=True)...
    runner(text=np.array(["今天天气很好"]))

Outputs to choose: `embedding` [B, H] (see `serving`), `sequence` [B, T, H],
`similarity` [1] of the rows of a batch of two, `mlm` [B, P, V], and
`classifier` [B, classes] where a fine-tuned classifier is given.

A model is a zip archive too (see `tflite_archive`). What a fine-tuned model's
files answer is in `task_tflite`.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_text as tf_text

from albert_tf2 import command_line, features, paths
from albert_tf2.errors import UserError, check_choice
from albert_tf2.model import layers
from albert_tf2.model.albert import AlbertPretrainer
from albert_tf2.text.tokenization import Tokenizer

from . import eight_bits, tflite_archive
from .encoder import MLM_INPUTS
from .preprocessor import DEFAULT_SEQ_LENGTH, Preprocessor
from .serving import cosine, embed
from .xnnpack import blocked_feed_forward

PRECISIONS = ("fp32", "fp16", "dynamic_int8", "int8")
OUTPUTS = ("embedding", "sequence", "similarity", "mlm", "classifier")
SIGNATURE = tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
MASKED_POSITIONS = 20  # P of the `mlm` output: 15 % of 128
# What padding's attention score may be in full int8, where all scores share
# 256 levels (see `int8_masked_score`).
INT8_MASKED_SCORES = (-16.0, -32.0, -64.0, -128.0, -256.0)

Inputs = dict[str, tf.Tensor]
Function = Callable[[Inputs], dict[str, tf.Tensor]]
Specs = dict[str, tf.TensorSpec]


def output_function(
    pretrainer: AlbertPretrainer,
    output: str,
    classifier: Callable[[Inputs], tf.Tensor] | None = None,
    *,
    normalized: bool = True,
) -> Function:
    """Returns what the TFLite model computes, from ids to named tensors.

    Args:
        pretrainer: The model.
        output: One of `OUTPUTS`.
        classifier: From encoder inputs to logits [B, classes]; needed for
            "classifier" alone.
        normalized: Give embeddings the length 1. Eight bits cannot divide:
            a full int8 model leaves that to its caller.
    """

    def sequence(inputs):
        return pretrainer.encoder(inputs, training=False)

    def embedding(inputs):
        return embed(
            sequence(inputs),
            inputs[features.INPUT_MASK],
            normalized=normalized,
        )

    def similarity(inputs):
        both = embedding(inputs)  # [2, H]
        return cosine(both[:1], both[1:])

    functions = {
        "embedding": embedding,
        "sequence": lambda x: sequence(x)[features.SEQUENCE_OUTPUT],
        "similarity": similarity,
        "mlm": lambda x: pretrainer(x, training=False)[features.MLM_LOGITS],
    }
    if classifier is not None:
        functions["classifier"] = lambda x: tf.nn.softmax(classifier(x))
    check_choice("output", output, OUTPUTS)
    if output == "similarity" and not normalized:
        raise UserError(
            "`output='similarity'` cannot be computed in full int8: choose "
            "`precision='dynamic_int8'`, or compare `embedding` outputs"
        )
    if output == "classifier" and classifier is None:
        raise UserError(
            "`output='classifier'` needs a fine-tuned classifier: run "
            "`python -m albert_tf2.finetune` first"
        )
    return lambda inputs: {output: functions[output](inputs)}


def id_specs(output: str, seq_length: int | None) -> Specs:
    """Returns the int32 inputs of a model that takes ids."""
    batch = 2 if output == "similarity" else 1
    names = MLM_INPUTS if output == "mlm" else features.ENCODER_INPUTS
    lengths = {features.MASKED_LM_POSITIONS: MASKED_POSITIONS}
    return {
        name: tf.TensorSpec(
            [batch, lengths.get(name, seq_length)], tf.int32, name
        )
        for name in names
    }


def string_specs(output: str) -> Specs:
    """Returns the string inputs of a model that takes text."""
    if output == "mlm":
        raise UserError(
            "`output='mlm'` takes ids, because [MASK] in a text is text: "
            "leave `takes_strings` out"
        )
    names = {"similarity": ("text_a", "text_b")}.get(output, ("text",))
    return {name: tf.TensorSpec([1], tf.string, name) for name in names}


def from_strings(
    function: Function,
    preprocessor: Preprocessor,
    seq_length: int,
    *,
    together: bool = False,
) -> Function:
    """Puts the tokenizer before a function of ids.

    Each text becomes a row; for "similarity" these are the two rows. A
    classifier of pairs takes them `together` in one.
    """

    def run(texts: Inputs) -> dict[str, tf.Tensor]:
        segments = [
            preprocessor.tokenize.cut_in_tflite(text) for text in texts.values()
        ]
        wholes = [segments] if together else [[each] for each in segments]
        rows = [preprocessor.pack(whole, seq_length) for whole in wholes]
        return function(
            {
                # The converter must know the shape to choose fast kernels.
                name: tf.reshape(
                    tf.concat([row[name] for row in rows], axis=0),
                    [len(rows), seq_length],
                )
                for name in rows[0]
            }
        )

    return run


def convert(
    function: Function,
    specs: Specs,
    *,
    precision: str = "fp32",
    samples: Iterable[dict[str, Any]] | None = None,
    blocked: bool = True,
    others: Mapping[str, Function] | None = None,
) -> bytes:
    """Converts a function of named inputs to a TFLite model.

    Args:
        function: From a dict of tensors to a dict of tensors.
        specs: Its inputs by name; None dimensions stay dynamic.
        precision: One of `PRECISIONS`.
        samples: Real inputs, by which "int8" chooses its ranges and padding's
            attention score.
        blocked: Write floating-point feed-forwards in blocks (`xnnpack`).
        others: Further functions of these inputs and the same weights, by the
            names of their signatures; "int8" would not calibrate them.
    """
    check_choice("precision", precision, PRECISIONS)
    if precision == "int8" and not samples:
        raise UserError(
            "`precision='int8'` needs `samples`: real inputs to calibrate on"
        )

    functions = {SIGNATURE: function, **(others or {})}
    # By way of a SavedModel: only that gives the model named signatures.
    root = tf.Module()
    samples = list(samples or ())
    with contextlib.ExitStack() as tracing:
        if precision in ("dynamic_int8", "int8"):
            tracing.enter_context(eight_bits.even_words())
        elif blocked:
            tracing.enter_context(blocked_feed_forward())
        if precision == "int8":
            score = int8_masked_score(function, samples)
            tracing.enter_context(_masked_score(score))
            tracing.enter_context(eight_bits.exact_products())
            tracing.enter_context(
                eight_bits.even_feed_forward(function, samples)
            )
        folder = tracing.enter_context(paths.temporary_folder("tflite"))
        signatures = {
            name: tf.function(
                each, input_signature=[specs], autograph=False
            ).get_concrete_function()
            for name, each in functions.items()
        }
        root.kept = [list(each.variables) for each in signatures.values()]
        tf.saved_model.save(root, folder, signatures=signatures)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.allow_custom_ops = True  # tf.text's
        if precision != "fp32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if precision == "fp16":
            converter.target_spec.supported_types = [tf.float16]
        with command_line.nobody_hears():
            if precision == "int8":
                return eight_bits.convert(converter, samples)
            return converter.convert()


def int8_masked_score(
    function: Function, samples: Sequence[dict[str, Any]]
) -> float:
    """Chooses the attention score that padding gets in full int8.

    The usual -10000 would take all levels but one from the other scores. Too
    near to them, padding is attended to, and how near depends on the model:
    training does not care what padding itself would score. So the first that
    moves no output on the samples by more than 1/256 of the largest.

    Args:
        function: See `convert`.
        samples: See `convert`.

    Returns:
        One of `INT8_MASKED_SCORES`; the last, with a warning, if none is far
        enough.
    """

    def outputs(score: float) -> np.ndarray:
        with _masked_score(score):
            found = [
                function({name: tf.constant(v) for name, v in sample.items()})
                for sample in samples
            ]
        return np.concatenate([np.ravel(y) for y in tf.nest.flatten(found)])

    expected = outputs(layers.MASKED_SCORE)
    for score in INT8_MASKED_SCORES:
        error = np.abs(outputs(score) - expected).max()
        if error <= np.abs(expected).max() / 256:
            return score
    warnings.warn(
        f"padding is not hidden at an attention score of {score:g} (outputs "
        f"move by {error:.2g}): full int8 will be poor for this model, use "
        "`precision='dynamic_int8'`",
        stacklevel=2,
    )
    return score


@contextlib.contextmanager
def _masked_score(score: float) -> Iterator[None]:
    """Gives padding another attention score."""
    usual = layers.MASKED_SCORE
    layers.MASKED_SCORE = score
    try:
        yield
    finally:
        layers.MASKED_SCORE = usual


def interpreter(
    path: paths.PathLike, *, num_threads: int = 1, strings: bool = False
) -> tf.lite.Interpreter:
    """Opens a TFLite model, one that takes strings too.

    TensorFlow warns that its interpreter moves to `ai_edge_litert`, which
    runs these models as well: `Interpreter(path)`, and for strings
    `InterpreterWithCustomOps(custom_op_registerers=tensorflow_text
    .tflite_registrar.SELECT_TFTEXT_OPS, model_path=path)`.
    """
    path = paths.fetched(path)
    with warnings.catch_warnings(), command_line.nobody_hears():
        warnings.simplefilter("ignore", UserWarning)
        if not strings:
            return tf.lite.Interpreter(path, num_threads=num_threads)
        # The one that tf.text's own guide names; it has no public alias.
        from tensorflow.lite.python.interpreter import InterpreterWithCustomOps

        return InterpreterWithCustomOps(
            tf_text.tflite_registrar.SELECT_TFTEXT_OPS,
            model_path=path,
            num_threads=num_threads,
        )


def export_tflite(
    pretrainer: AlbertPretrainer,
    path: paths.PathLike,
    tokenizer: Tokenizer,
    *,
    output: str = "embedding",
    precision: str = "fp32",
    seq_length: int | None = DEFAULT_SEQ_LENGTH,
    takes_strings: bool = False,
    classifier: Callable[[Inputs], tf.Tensor] | None = None,
    samples: Iterable[dict[str, Any]] | None = None,
    overwrite: bool = False,
) -> paths.PathLike:
    """Writes one TFLite model.

    Args:
        pretrainer: The model.
        path: The new `.tflite` file.
        tokenizer: Its own; what it does is put into the file.
        output: One of `OUTPUTS`.
        precision: One of `PRECISIONS`.
        seq_length: T, the same for every call, which is fastest; None makes
            a model whose inputs can be resized (not one of strings).
        takes_strings: Put the tokenizer into the model; to run it, the
            interpreter needs tf.text's operations (see `interpreter`).
        classifier: See `output_function`.
        samples: See `convert`.
        overwrite: Replace an existing file.
    """
    if paths.exists(path) and not overwrite:
        raise UserError(
            f"{paths.shown(path)} already exists: choose another name or "
            "pass --overwrite"
        )
    tokenizer.vocabulary.check_size(pretrainer.config.vocab_size)
    function = output_function(
        pretrainer, output, classifier, normalized=precision != "int8"
    )
    specs = id_specs(output, seq_length)
    if takes_strings:
        if seq_length is None:
            raise UserError(
                "`takes_strings` needs a fixed `seq_length`: shorter texts "
                "are padded to it"
            )
        preprocessor = Preprocessor(tokenizer)
        function = from_strings(function, preprocessor, seq_length)
        specs = string_specs(output)
    model = convert(function, specs, precision=precision, samples=samples)
    metadata = {
        "output": output,
        "precision": precision,
        "seq_length": seq_length,
        "takes_strings": takes_strings,
        "inputs": tflite_archive.specs_described(specs),
        "config": pretrainer.config.to_dict(),
    }
    tflite_archive.write(path, model, metadata, tokenizer)
    return path
