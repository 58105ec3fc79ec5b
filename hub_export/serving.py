"""One SavedModel that takes strings: tokenizer and encoder in one graph.

    serving_default  text [B]                -> embedding, pooled_output [B, H]
    similarity       text_a [B], text_b [B]  -> similarity [B], -1 .. 1

An embedding is the mean of the token vectors, of length 1, so that the dot
product of two embeddings is their similarity. What a fine-tuned model answers
is in `task_serving`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf

from albert_tf2 import features, paths
from albert_tf2.model.albert import AlbertPretrainer
from albert_tf2.model.pooling import sum_of_tokens
from albert_tf2.paths import saved_models
from albert_tf2.text.tokenization import Tokenizer

from .preprocessor import DEFAULT_SEQ_LENGTH, Preprocessor, add_text_assets


def embed(
    outputs: dict[str, tf.Tensor],
    input_mask: tf.Tensor,
    *,
    normalized: bool = True,
) -> tf.Tensor:
    """Returns the mean token vectors, of length 1: float32 [B, H].

    [CLS] and [SEP] count as tokens, padding does not. Without `normalized`
    it is their sum: the same direction.
    """
    total = sum_of_tokens(outputs[features.SEQUENCE_OUTPUT], input_mask)
    if not normalized:
        return total
    # The mean's divisor would cancel here.
    norm = tf.sqrt(tf.reduce_sum(tf.square(total), axis=-1, keepdims=True))
    return total / tf.maximum(norm, 1e-12)


def cosine(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """Returns the similarity of embeddings [B, H]: [B], -1 .. 1."""
    return tf.reduce_sum(first * second, axis=-1)


class ServingModel(tf.Module):
    """The root of the serving SavedModel."""

    def __init__(
        self,
        pretrainer: AlbertPretrainer,
        tokenizer: Tokenizer,
        *,
        seq_length: int = DEFAULT_SEQ_LENGTH,
    ):
        """Joins tokenizer and encoder.

        Args:
            pretrainer: The trained model.
            tokenizer: Its own.
            seq_length: Longer texts and pairs are trimmed to it.
        """
        super().__init__(name="serving")
        self._seq_length = seq_length
        # A plain function: a Keras model as an attribute would be saved with
        # traces of its own.
        encoder = pretrainer.encoder
        self._encode = lambda inputs: encoder(inputs, training=False)
        self.preprocessor = Preprocessor(tokenizer, seq_length=seq_length)
        self.kept = list(pretrainer.encoder.variables)

    def embed(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """Signature `serving_default`."""
        inputs = self.preprocessor.rows([text], self._seq_length)
        outputs = self._encode(inputs)
        return {
            "embedding": embed(outputs, inputs[features.INPUT_MASK]),
            features.POOLED_OUTPUT: outputs[features.POOLED_OUTPUT],
        }

    def similarity(
        self, text_a: tf.Tensor, text_b: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Signature `similarity`."""
        both = self.embed(tf.concat([text_a, text_b], axis=0))["embedding"]
        count = tf.shape(text_a)[0]
        return {"similarity": cosine(both[:count], both[count:])}

    def signatures(self) -> dict[str, Any]:
        """Returns the functions to publish, by name."""
        one = [tf.TensorSpec([None], tf.string, "text")]
        two = [tf.TensorSpec([None], tf.string, f"text_{x}") for x in "ab"]
        published = {
            "serving_default": (self.embed, one),
            "similarity": (self.similarity, two),
        }
        return {
            name: tf.function(function, autograph=False).get_concrete_function(
                *specs
            )
            for name, (function, specs) in published.items()
        }


def warmup_log(signature: str, inputs: dict[str, list]) -> bytes:
    """Returns a PredictionLog with a request for one signature.

    Written by hand from prediction_log.proto and predict.proto, so that the
    package tensorflow-serving-api is not needed: it pins TensorFlow.
    """
    spec = _field(1, b"serving") + _field(3, signature.encode())
    request = _field(1, spec)
    for name, texts in inputs.items():
        tensor = tf.make_tensor_proto(texts).SerializeToString()
        entry = _field(1, name.encode()) + _field(2, tensor)
        request += _field(2, entry)
    return _field(6, _field(1, request))  # predict_log, request


def _field(number: int, content: bytes) -> bytes:
    """Encodes a length-delimited protocol buffer field."""
    length, size = bytearray(), len(content)
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([number << 3 | 2, *length, size]) + content


def write_warmup(
    folder: Path,
    signatures: dict[str, Any],
    requests: Callable[..., dict[str, list]] | None = None,
) -> None:
    """Writes the requests that TF Serving runs before it answers.

    One of a single short text and one of a full batch of long ones, for each
    signature: the first real request then finds all memory allocated.

    Args:
        folder: The SavedModel's.
        signatures: Its signatures by name.
        requests: From `large` to the inputs of a request; None gives every
            input the same texts.
    """
    path = folder / "assets.extra" / "tf_serving_warmup_requests"
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for name, signature in signatures.items():
            arguments, _ = signature.structured_input_signature
            for large in (False, True):
                if requests is not None:
                    given = requests(large=large)
                else:
                    texts = ["今天天气很好"]
                    if large:
                        texts = ["今天天气很好，" * 30] * 32
                    given = {argument.name: texts for argument in arguments}
                writer.write(warmup_log(name, given))


def export_serving(
    pretrainer: AlbertPretrainer,
    tokenizer: Tokenizer,
    export_dir: paths.PathLike,
    *,
    seq_length: int = DEFAULT_SEQ_LENGTH,
    overwrite: bool = False,
) -> paths.PathLike:
    """Writes the serving SavedModel and returns its folder.

    Args:
        pretrainer: The trained model.
        tokenizer: Its own, of exactly `config.vocab_size` tokens.
        export_dir: The new folder; `<name>/<version>` for TF Serving.
        seq_length: See `ServingModel`.
        overwrite: Replace an existing folder.
    """
    tokenizer.vocabulary.check_size(pretrainer.config.vocab_size)
    with paths.atomic_directory(export_dir, overwrite=overwrite) as folder:
        with paths.temporary_folder("export") as staging:
            root = ServingModel(
                pretrainer,
                tokenizer,
                seq_length=seq_length,
            )
            add_text_assets(root.preprocessor, tokenizer, staging)
            signatures = root.signatures()
            saved_models.save(root, folder, signatures=signatures)
            write_warmup(folder, signatures)
    return export_dir
