"""TFLite models of the encoder, for phones and for the fastest CPU serving.

    export_tflite(pretrainer, "tiny.tflite")                  # fp32, [1, 128]
    export_tflite(pretrainer, "tiny_int8.tflite", precision="dynamic_int8")

    runner = interpreter("tiny.tflite").get_signature_runner()
    runner(input_word_ids=ids, input_mask=mask, input_type_ids=types)

Outputs to choose: `embedding` [B, H] (see `serving`), `sequence` [B, T, H],
`similarity` [1] of the rows of a batch of two, `mlm` [B, P, V], and
`classifier` [B, classes] where a fine-tuned classifier is given.
"""

import contextlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from albert_tf2 import features, files
from albert_tf2.errors import UserError
from albert_tf2.models import AlbertPretrainer

from .encoder import MLM_INPUTS
from .preprocessor import DEFAULT_SEQ_LENGTH, VOCAB_NAME, Preprocessor
from .serving import cosine, embed
from .verify import probe_inputs

PRECISIONS = ("fp32", "fp16", "dynamic_int8", "int8")
OUTPUTS = ("embedding", "sequence", "similarity", "mlm", "classifier")
MASKED_POSITIONS = 20  # P of the `mlm` output: 15 % of 128

Inputs = dict[str, tf.Tensor]


def output_function(
    pretrainer: AlbertPretrainer,
    output: str,
    classifier: Callable[[Inputs], tf.Tensor] | None = None,
) -> Callable[[Inputs], dict[str, tf.Tensor]]:
    """Returns what the TFLite model computes, from ids to named tensors.

    Args:
        pretrainer: The model.
        output: One of `OUTPUTS`.
        classifier: From encoder inputs to logits [B, classes]; needed for
            "classifier" alone.
    """

    def embedding(inputs):
        outputs = pretrainer.encoder(inputs, training=False)
        return embed(outputs, inputs[features.INPUT_MASK])

    functions = {
        "embedding": lambda inputs: {"embedding": embedding(inputs)},
        "sequence": lambda inputs: {
            features.SEQUENCE_OUTPUT: pretrainer.encoder(
                inputs, training=False
            )[features.SEQUENCE_OUTPUT]
        },
        "similarity": lambda inputs: _similarity(embedding(inputs)),
        "mlm": lambda inputs: {
            features.MLM_LOGITS: pretrainer(inputs, training=False)[
                features.MLM_LOGITS
            ]
        },
        "classifier": lambda inputs: {
            "probabilities": tf.nn.softmax(classifier(inputs))
        },
    }
    if output not in functions:
        raise UserError(
            f"`output` must be one of {', '.join(OUTPUTS)}. "
            f"Received: `output={output!r}`"
        )
    if output == "classifier" and classifier is None:
        raise UserError(
            "`output='classifier'` needs a fine-tuned classifier: run "
            "`python -m albert_tf2.finetune` first"
        )
    return functions[output]


def _similarity(embeddings: tf.Tensor) -> dict[str, tf.Tensor]:
    return {"similarity": cosine(embeddings[:1], embeddings[1:])}


def convert(
    function: Callable[..., dict[str, tf.Tensor]],
    specs: Inputs,
    *,
    precision: str = "fp32",
    samples: Iterable[Inputs] | None = None,
    strings: bool = False,
) -> bytes:
    """Converts a function of named inputs to a TFLite model.

    Args:
        function: From a dict of tensors to a dict of tensors.
        specs: Its inputs by name; None dimensions stay dynamic.
        precision: One of `PRECISIONS`.
        samples: Real inputs, by which "int8" chooses its ranges.
        strings: Whether the model holds tf.text's operations.
    """
    if precision not in PRECISIONS:
        raise UserError(
            f"`precision` must be one of {', '.join(PRECISIONS)}. "
            f"Received: `precision={precision!r}`"
        )
    if precision == "int8" and samples is None:
        raise UserError(
            "`precision='int8'` needs `samples`: real inputs to calibrate on"
        )

    @tf.function(input_signature=[specs], autograph=False)
    def serve(inputs):
        return function(inputs)

    # By way of a SavedModel: only that gives the model named signatures.
    root = tf.Module()
    root.kept = list(serve.get_concrete_function().variables)
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(root, folder, signatures=serve)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        return _run(converter, precision, samples, strings)


def _run(converter, precision, samples, strings) -> bytes:
    converter.allow_custom_ops = strings
    if precision != "fp32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "fp16":
        converter.target_spec.supported_types = [tf.float16]
    if precision == "int8":
        converter.representative_dataset = lambda: iter(
            [dict(sample) for sample in samples]
        )
    with _quiet():
        return converter.convert()


def interpreter(
    path: files.PathLike, *, num_threads: int = 1, strings: bool = False
) -> tf.lite.Interpreter:
    """Opens a TFLite model, one that takes strings too.

    TensorFlow warns that its interpreter moves to `ai_edge_litert`, which
    however does not run tf.text's operations.
    """
    extra = {}
    if strings:
        import tensorflow_text as tf_text

        registerer = tf_text.tflite_registrar.SELECT_TFTEXT_OPS
        extra["custom_op_registerers"] = registerer
    with warnings.catch_warnings(), _quiet():
        warnings.simplefilter("ignore", UserWarning)
        return tf.lite.Interpreter(str(path), num_threads=num_threads, **extra)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Drops the converter's chatter on stderr, which C++ writes itself."""
    kept = os.dup(2)
    silent = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(silent, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(silent)
        os.close(kept)


def export_tflite(
    pretrainer: AlbertPretrainer,
    path: files.PathLike,
    *,
    output: str = "embedding",
    precision: str = "fp32",
    seq_length: int | None = DEFAULT_SEQ_LENGTH,
    classifier: Callable[[Inputs], tf.Tensor] | None = None,
    samples: Iterable[Inputs] | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes one TFLite model that takes ids.

    Args:
        pretrainer: The model.
        path: The new `.tflite` file.
        output: One of `OUTPUTS`.
        precision: One of `PRECISIONS`.
        seq_length: T, the same for every call, which is fastest; None makes
            a model whose inputs can be resized.
        classifier: See `output_function`.
        samples: See `convert`.
        overwrite: Replace an existing file.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise UserError(
            f"{path} already exists: choose another name or pass --overwrite"
        )
    batch = 2 if output == "similarity" else 1
    names = MLM_INPUTS if output == "mlm" else features.ENCODER_INPUTS
    specs = {
        name: tf.TensorSpec([batch, seq_length], tf.int32, name)
        for name in names
    }
    if output == "mlm":
        specs[features.MASKED_LM_POSITIONS] = tf.TensorSpec(
            [batch, MASKED_POSITIONS], tf.int32, features.MASKED_LM_POSITIONS
        )
    model = convert(
        output_function(pretrainer, output, classifier),
        specs,
        precision=precision,
        samples=samples,
    )
    with files.atomic_file(path, "wb") as stream:
        stream.write(model)
    return path


def calibration_samples(
    sentences: Sequence[str],
    vocab_file: files.PathLike,
    *,
    do_lower_case: bool = True,
    seq_length: int | None = DEFAULT_SEQ_LENGTH,
    limit: int = 100,
) -> list[dict[str, np.ndarray]]:
    """Returns real encoder inputs [1, T], by which int8 chooses its ranges."""
    preprocessor = Preprocessor(
        vocab_file,
        do_lower_case=do_lower_case,
        seq_length=seq_length or DEFAULT_SEQ_LENGTH,
    )
    chosen = [s for s in sentences if s.strip()][:limit]
    if not chosen:
        raise UserError("the calibration sentences are empty: give real ones")
    inputs = preprocessor(tf.constant(chosen))
    return [
        {name: value.numpy()[row : row + 1] for name, value in inputs.items()}
        for row in range(len(chosen))
    ]


def export_variants(
    pretrainer: AlbertPretrainer,
    vocab_file: files.PathLike,
    export_dir: files.PathLike,
    *,
    do_lower_case: bool = True,
    seq_length: int = DEFAULT_SEQ_LENGTH,
    sentences: Sequence[str] | None = None,
    overwrite: bool = False,
) -> Iterator[str]:
    """Writes the embedding model in every precision and both kinds of length.

    Args:
        pretrainer: The model.
        vocab_file: Its vocabulary; copied beside the models.
        export_dir: The new folder.
        do_lower_case: How calibration sentences are tokenized.
        seq_length: T of the models of fixed length.
        sentences: Real sentences; without them there is no full int8 model.
        overwrite: Replace an existing folder.

    Yields:
        A line per written model: its name, size and difference from fp32.
    """
    samples = None
    precisions = PRECISIONS[:-1]
    if sentences is not None:
        precisions = PRECISIONS
        samples = calibration_samples(
            sentences,
            vocab_file,
            do_lower_case=do_lower_case,
            seq_length=seq_length,
        )
    with files.atomic_directory(export_dir, overwrite=overwrite) as folder:
        shutil.copyfile(vocab_file, folder / VOCAB_NAME)
        for precision in precisions:
            for length in (seq_length, None):
                name = f"embedding_{precision}_{length or 'dynamic'}.tflite"
                path = export_tflite(
                    pretrainer,
                    folder / name,
                    precision=precision,
                    seq_length=length,
                    samples=samples,
                )
                size = path.stat().st_size / 1e6
                agreement = _agreement(path, pretrainer, seq_length)
                yield f"{name}: {size:.1f} MB, cosine {agreement:.5f} to fp32"


def _agreement(
    path: Path, pretrainer: AlbertPretrainer, seq_length: int
) -> float:
    """Returns the cosine between a model's embedding and the encoder's."""
    inputs = {
        name: value[:1]
        for name, value in probe_inputs(
            pretrainer.config.vocab_size, seq_length
        ).items()
    }
    expected = output_function(pretrainer, "embedding")(
        {name: tf.constant(value) for name, value in inputs.items()}
    )
    found = interpreter(path).get_signature_runner()(**inputs)["embedding"]
    return float(cosine(expected["embedding"], found)[0])
