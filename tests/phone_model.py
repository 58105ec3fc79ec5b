"""A classifier of a few numbers, as `hub_export` writes it for phones."""

import numpy as np
import tensorflow as tf

from albert_tf2.features import ENCODER_INPUTS
from albert_tf2.hub_export import mediapipe_metadata, tflite_archive
from albert_tf2.text.text_settings import TextSettings
from albert_tf2.text.tokenization import Tokenizer, Vocabulary

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"今天气很好坏a，。"]
LABELS = ["好", "坏", "不知道"]
TOKENIZER = Tokenizer(Vocabulary(WORDS), TextSettings())


def write(folder, length):
    """Writes `classifier_fp32_<length>.tflite`, labels and vocabulary.

    Returns:
        The file, and the function that it computes.
    """
    table = np.random.default_rng(2).normal(size=[len(WORDS), len(LABELS)])

    def scores(input_word_ids, input_mask, input_type_ids):
        # Every input counts, so that none is taken for another.
        weights = tf.cast(input_mask + 2 * input_type_ids, tf.float32)
        rows = tf.gather(tf.constant(table, tf.float32), input_word_ids)
        places = tf.range(1.0, length + 1.0)[None, :, None]
        sums = tf.reduce_sum(rows * weights[..., None] / places, 1)
        return {"probabilities": tf.nn.softmax(sums)}

    function = tf.function(
        scores,
        input_signature=[
            tf.TensorSpec([1, length], tf.int32, name=name)
            for name in ENCODER_INPUTS
        ],
    )
    holder = tf.Module()
    holder.serve = function
    saved = folder / "saved"
    tf.saved_model.save(holder, str(saved), signatures=function)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved))
    labels = "".join(f"{name}\n" for name in LABELS).encode()
    path = folder / f"classifier_fp32_{length}.tflite"
    tflite_archive.write(
        path,
        mediapipe_metadata.with_metadata(
            converter.convert(),
            kind="classification",
            output="probabilities",
            labels_file="labels.txt",
        ),
        {},
        TOKENIZER,
        {"labels.txt": labels},
    )
    (folder / "labels.txt").write_bytes(labels)
    TOKENIZER.save(folder)
    return path, function


def row_of(text, length):
    """Returns the inputs of a text: int32 [1, length] by name."""
    ids = [2, *TOKENIZER.tokenize(text).ids[: length - 2], 3]
    padding = [0] * (length - len(ids))
    columns = (ids + padding, [1] * len(ids) + padding, [0] * length)
    return {
        name: np.array([column], np.int32)
        for name, column in zip(ENCODER_INPUTS, columns, strict=True)
    }
