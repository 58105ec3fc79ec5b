"""Fine-tuned models for phones: TFLite files that label or score texts.

    classifier_fp32_64.tflite            ids [1, 64]       -> probabilities
    classifier_fp16_64.tflite
    classifier_dynamic_int8_64.tflite
    classifier_fp32_strings.tflite       text, or text_a and text_b [1]
    classifier_dynamic_int8_strings.tflite
    labels.txt                           line n names probability n

64 is the model's own length. Every file answers one text or pair at a time,
and holds `labels.txt`, `task.json` and the vocabulary inside (see
`tflite_archive`). Outputs are `probabilities` [1, n], each label by itself
where a text may have several, `score` [1], or `embedding` [1, H].

Those of ids run with `ai_edge_litert` alone, those of strings with tf.text's
operations too (see `tflite.interpreter`). Those of ids that read one text are
MediaPipe's TextClassifier or TextEmbedder as well (`mediapipe_metadata`).
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from albert_tf2 import paths
from albert_tf2.errors import UserError
from albert_tf2.prediction.tuned_model import TunedModel
from albert_tf2.tasks import base
from albert_tf2.tasks.base import TASK_FILE

from . import mediapipe_metadata, tflite, tflite_archive
from .preprocessor import Preprocessor
from .task_graphs import text_answers, text_names
from .task_probes import GIVEN, expected_answers
from .tflite_archive import LABELS_FILE

# By kind of task: the beginning of the files' names, and the one output.
FORMS = {
    base.CLASSIFICATION: ("classifier", "probabilities"),
    base.MULTI_LABEL: ("classifier", "probabilities"),
    base.REGRESSION: ("regression", "score"),
    base.VECTORS: ("vectors", "embedding"),
}
VARIANTS = (
    ("fp32", False),
    ("fp16", False),
    ("dynamic_int8", False),
    ("fp32", True),
    ("dynamic_int8", True),
)
# In fp32 nothing but the order of additions is another.
TOLERANCE = 1e-5


def export_task_tflite(
    tuned: TunedModel, export_dir: paths.PathLike, *, overwrite: bool = False
) -> Iterator[str]:
    """Writes a fine-tuned model in every precision and kind of input.

    Args:
        tuned: The model; its lengths are those of the files.
        export_dir: The new folder.
        overwrite: Replace an existing folder.

    Yields:
        A line per file: its size, and how far from the predictor it answers.

    Raises:
        UserError: For a file that answers otherwise than the predictor.
    """
    name, output = FORMS[tuned.task.kind]
    expected = expected_answers(tuned)
    labels = "".join(f"{label}\n" for label in tuned.task.labels).encode()
    with paths.atomic_directory(export_dir, overwrite=overwrite) as folder:
        tuned.loaded.tokenizer.save(folder)
        if labels:
            (folder / LABELS_FILE).write_bytes(labels)
        for precision, takes_strings in VARIANTS:
            length = tuned.lengths.max_seq_length
            kind = "strings" if takes_strings else length
            path = folder / f"{name}_{precision}_{kind}.tflite"
            _write(tuned, path, precision, takes_strings, labels)
            worst, changed, asked = _compare(
                tuned, path, takes_strings, expected, output
            )
            if precision == "fp32" and not worst <= TOLERANCE:
                raise UserError(
                    f"{path.name} answers otherwise than the predictor: "
                    f"{output} differ by {worst:.1e}; nothing was written"
                )
            size = path.stat().st_size / 1e6
            yield (
                f"{path.name}: {size:.1f} MB, {output} differ from the "
                f"predictor's by {worst:.1e}"
                + (f", {changed} of {asked} labels changed" if labels else "")
            )


def _function(tuned: TunedModel, output: str) -> tflite.Function:
    """Returns what a file computes, from ids to its one output."""
    answers = text_answers(tuned.task)
    model = tuned.model
    return lambda inputs: {
        output: answers(model(inputs, training=False))[output]
    }


def _write(
    tuned: TunedModel,
    path: Path,
    precision: str,
    takes_strings: bool,
    labels: bytes,
) -> None:
    length = tuned.lengths.max_seq_length
    _, output = FORMS[tuned.task.kind]
    function = _function(tuned, output)
    specs = tflite.id_specs("classifier", length)
    if takes_strings:
        names = text_names(tuned.task)
        specs = {n: tf.TensorSpec([1], tf.string, n) for n in names}
        function = tflite.from_strings(
            function,
            Preprocessor(tuned.loaded.tokenizer),
            length,
            together=True,
        )
    metadata: dict[str, Any] = {
        "output": output,
        "precision": precision,
        "seq_length": length,
        "takes_strings": takes_strings,
        "inputs": tflite_archive.specs_described(specs),
        "batch": 1,
        "kind": tuned.task.kind,
    }
    if tuned.loaded.config is not None:
        metadata["config"] = tuned.loaded.config.to_dict()
    more = {TASK_FILE: tflite_archive.json_bytes(tuned.describe())}
    if labels:
        more[LABELS_FILE] = labels
    model = tflite.convert(function, specs, precision=precision)
    pairs = len(text_names(tuned.task)) > 1
    if not takes_strings and mediapipe_metadata.fits(
        tuned.task.kind, pairs, tuned.loaded.tokenizer.settings
    ):
        model = mediapipe_metadata.with_metadata(
            model,
            kind=tuned.task.kind,
            output=output,
            labels_file=LABELS_FILE if labels else None,
        )
    tflite_archive.write(path, model, metadata, tuned.loaded.tokenizer, more)


def _compare(
    tuned: TunedModel,
    path: Path,
    takes_strings: bool,
    expected: dict[str, np.ndarray],
    output: str,
) -> tuple[float, int, int]:
    """Asks a file what the predictor was asked.

    Returns:
        The largest difference, of scores above 1 as a share of them; how
        many labels changed, of how many texts.
    """
    run = tflite.interpreter(path, strings=takes_strings)
    runner: Callable[..., dict[str, np.ndarray]] = run.get_signature_runner()
    texts = [
        expected[f"{GIVEN}{name}"].tolist() for name in text_names(tuned.task)
    ]
    preprocessor = Preprocessor(tuned.loaded.tokenizer)
    worst, changed = 0.0, 0
    for row, wanted in enumerate(expected[output]):
        parts = [np.array([column[row]]) for column in texts]
        if takes_strings:
            given = dict(zip(text_names(tuned.task), parts, strict=True))
        else:
            packed = preprocessor.pack(
                [preprocessor.tokenize.cut(tf.constant(p)) for p in parts],
                tuned.lengths.max_seq_length,
            )
            given = {key: value.numpy() for key, value in packed.items()}
        found = runner(**given)[output][0]
        size = max(1.0, float(np.abs(wanted).max()))
        worst = max(worst, float(np.abs(found - wanted).max()) / size)
        if tuned.task.kind == base.MULTI_LABEL:
            changed += bool(np.any((found >= 0.5) != (wanted >= 0.5)))
        elif tuned.task.kind == base.CLASSIFICATION:
            changed += int(np.argmax(found)) != int(np.argmax(wanted))
    return worst, changed, len(expected[output])
