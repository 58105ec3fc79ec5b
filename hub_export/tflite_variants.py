"""All the TFLite models of one checkpoint, in one folder."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from albert_tf2 import paths
from albert_tf2.errors import UserError
from albert_tf2.model.albert import AlbertPretrainer
from albert_tf2.text.tokenization import Tokenizer

from . import quantization
from .preprocessor import DEFAULT_SEQ_LENGTH, Preprocessor
from .serving import cosine
from .tflite import PRECISIONS, export_tflite, interpreter, output_function
from .verify import PROBES

# Enough for stable ranges: they change by less than 1 % from 50 on.
CALIBRATION_SENTENCES = 100


def calibration_samples(
    sentences: Sequence[str],
    tokenizer: Tokenizer,
    *,
    seq_length: int = DEFAULT_SEQ_LENGTH,
) -> list[dict[str, np.ndarray]]:
    """Returns real encoder inputs [1, T], by which int8 chooses its ranges."""
    chosen = [s for s in sentences if s.strip()][:CALIBRATION_SENTENCES]
    if not chosen:
        raise UserError("the calibration sentences are empty: give real ones")
    preprocessor = Preprocessor(tokenizer, seq_length=seq_length)
    inputs = preprocessor(tf.constant(chosen))
    return [
        {name: value.numpy()[row : row + 1] for name, value in inputs.items()}
        for row in range(len(chosen))
    ]


def export_variants(
    pretrainer: AlbertPretrainer,
    tokenizer: Tokenizer,
    export_dir: paths.PathLike,
    *,
    seq_length: int = DEFAULT_SEQ_LENGTH,
    sentences: Sequence[str] | None = None,
    accept_loss: bool = False,
    overwrite: bool = False,
) -> Iterator[str]:
    """Writes the embedding model in every precision and kind of input.

    Args:
        pretrainer: The model.
        tokenizer: Its own; written beside the models, too.
        export_dir: The new folder.
        seq_length: T of the models of fixed length.
        sentences: Real sentences; without them there is no full int8 model.
        accept_loss: Write a model that lost much, too.
        overwrite: Replace an existing folder.

    Yields:
        A line per written model: its name, size and difference from fp32.
        What each precision lost on the sentences stands in `LOSSES_FILE`.

    Raises:
        UserError: For a precision that lost too much (`quantization`).
    """
    samples = None
    if sentences:
        samples = calibration_samples(
            sentences, tokenizer, seq_length=seq_length
        )
    wanted = [
        (precision, length, False)
        for precision in PRECISIONS
        if precision != "int8" or samples
        for length in (seq_length, None)
    ]
    wanted += [("fp32", seq_length, True), ("dynamic_int8", seq_length, True)]
    probes = calibration_samples(PROBES, tokenizer, seq_length=seq_length)
    compared = quantization.measured_on(sentences or ())
    losses: dict[str, Any] = {}
    with paths.atomic_directory(export_dir, overwrite=overwrite) as folder:
        tokenizer.save(folder)
        for precision, length, takes_strings in wanted:
            kind = "strings" if takes_strings else length or "dynamic"
            path = folder / f"embedding_{precision}_{kind}.tflite"
            export_tflite(
                pretrainer,
                path,
                tokenizer,
                precision=precision,
                seq_length=length,
                takes_strings=takes_strings,
                samples=samples,
            )
            agreement = _agreement(path, pretrainer, probes, takes_strings)
            size = path.stat().st_size / 1e6
            yield f"{path.name}: {size:.1f} MB, cosine {agreement:.5f} to fp32"
            # The other kinds of input compute the same numbers.
            if compared and precision != "fp32" and length and kind == length:
                found = _loss(path, pretrainer, tokenizer, compared, length)
                quantization.must_be_little(
                    path.name, found, accept=accept_loss
                )
                losses[precision] = found.to_dict()
                yield f"  {found}"
        if losses:
            paths.write_json(folder / quantization.LOSSES_FILE, losses)


def _loss(
    path: Path,
    pretrainer: AlbertPretrainer,
    tokenizer: Tokenizer,
    sentences: Sequence[str],
    seq_length: int,
) -> quantization.Loss:
    """Compares a model's embeddings of sentences with ours in float32."""
    preprocessor = Preprocessor(tokenizer, seq_length=seq_length)
    runner = interpreter(path, num_threads=2).get_signature_runner()
    ours = tf.function(
        output_function(pretrainer, "embedding"), autograph=False
    )
    expected, found = [], []
    for sentence in sentences:
        inputs = preprocessor(tf.constant([sentence]))
        expected.append(ours(inputs)["embedding"].numpy()[0])
        given = {name: value.numpy() for name, value in inputs.items()}
        found.append(runner(**given)["embedding"][0])
    return quantization.loss(np.stack(expected), np.stack(found))


def _agreement(
    path: Path,
    pretrainer: AlbertPretrainer,
    probes: list[dict[str, np.ndarray]],
    takes_strings: bool,
) -> float:
    """Returns the least cosine between the embeddings of a model and ours."""
    runner = interpreter(path, strings=takes_strings).get_signature_runner()
    ours = output_function(pretrainer, "embedding")
    cosines = []
    for text, inputs in zip(PROBES, probes, strict=False):
        expected = ours({k: tf.constant(v) for k, v in inputs.items()})
        given = {"text": np.array([text])} if takes_strings else inputs
        found = runner(**given)["embedding"]
        found /= np.linalg.norm(found)  # full int8 leaves it to the caller
        cosines.append(float(cosine(expected["embedding"], found)[0]))
    return min(cosines)
