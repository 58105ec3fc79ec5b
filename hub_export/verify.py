"""Proves exported SavedModels: moved elsewhere, loaded by a new process.

What worked in the process that wrote a model says little: a vocabulary path
or a variable may still point there. So everything is checked again by a
process that knows nothing but a copy of the folder.

    python -m albert_tf2.hub_export.verify --export_dir exported
"""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from albert_tf2 import command_line, features, paths
from albert_tf2.errors import UserError
from albert_tf2.paths import saved_models
from albert_tf2.prediction.sentence_vectors import SentenceVectors
from albert_tf2.prediction.similarity import unit

from .task_probes import GIVEN, PROBES

EXPECTED = "expected.npz"
TOLERANCE = 2e-5  # float32, another order of additions
ANSWER_TOLERANCE = 1e-5  # of probabilities, which predictions round to 1e-6


def probe_inputs(vocab_size: int, length: int = 9) -> dict[str, np.ndarray]:
    """Returns encoder inputs that are the same everywhere: int32 [3, T]."""
    rng = np.random.default_rng(0)
    lengths = np.array([[length], [length // 2], [1]])
    position = np.arange(length)
    return {
        features.INPUT_WORD_IDS: rng.integers(
            0, vocab_size, (3, length), np.int32
        ),
        features.INPUT_MASK: (position < lengths).astype(np.int32),
        features.INPUT_TYPE_IDS: (
            (position >= lengths // 2) & (position < lengths)
        ).astype(np.int32),
    }


def expected_outputs(pretrainer) -> dict[str, np.ndarray]:
    """Returns the pooled vectors and logits of the model in memory."""
    inputs = probe_inputs(pretrainer.config.vocab_size)
    positions = np.array([[0, 1], [2, 0], [0, 0]], np.int32)
    inputs[features.MASKED_LM_POSITIONS] = positions
    outputs = pretrainer(inputs, training=False)
    names = (features.POOLED_OUTPUT, features.MLM_LOGITS, features.SOP_LOGITS)
    kept = {name: outputs[name].numpy() for name in names}
    return kept | {features.MASKED_LM_POSITIONS: positions}


def expected_embeddings(
    pretrainer, tokenizer, seq_length: int
) -> dict[str, np.ndarray]:
    """Returns what a serving model must give for `PROBES`: [texts, H].

    As `Predictor` embeds them: nothing of the export.
    """
    vectors = SentenceVectors(
        pretrainer.encoder,
        tokenizer,
        max_seq_length=seq_length,
        positions=pretrainer.config.max_position_embeddings,
        batch_size=1,
    )
    return {"embedding": unit(vectors.embed(PROBES))}


def _need(holds: Any, found: Any = "") -> None:
    """An `assert` that `python -O` does not take out."""
    if not holds:
        raise AssertionError(found)


def check_preprocessor(folder: Path) -> Iterator[str]:
    """Yields what holds; raises `AssertionError` at what does not."""
    import tensorflow as tf
    import tensorflow_text  # noqa: F401  registers the graph's operations

    from albert_tf2.text.tokenization import Tokenizer

    loaded = saved_models.load(folder)
    vocab_file = loaded.vocab_file.asset_path.numpy().decode()
    _need(Path(vocab_file).is_relative_to(folder), vocab_file)
    special = {
        name: int(value)
        for name, value in loaded.tokenize.get_special_tokens_dict().items()
    }
    tokenizer = Tokenizer(vocab_file)  # with the settings beside it
    _need(special["vocab_size"] == len(tokenizer.vocabulary))
    yield f"vocabulary of {special['vocab_size']} tokens inside"

    tokens = loaded.tokenize(tf.constant(PROBES))
    expected = [tokenizer.tokenize(text).ids for text in PROBES]
    _need(tokens.merge_dims(1, 2).to_list() == expected)
    yield f"ids equal the Python tokenizer's on {len(PROBES)} hard texts"

    cls, sep = special["start_of_sequence_id"], special["end_of_segment_id"]
    outputs = loaded(tf.constant(PROBES))[features.INPUT_WORD_IDS].numpy()
    for row, ids in zip(outputs, expected, strict=True):
        ids = [cls, *ids[: len(row) - 2], sep]
        _need(
            row.tolist()
            == ids + [special["padding_id"]] * (len(row) - len(ids)),
            row,
        )
    for length in (8, 64):
        for segment in (tokens, tokens.merge_dims(1, 2)):
            for segments in ([segment], [segment, segment]):
                pair = loaded.bert_pack_inputs(segments, seq_length=length)
                _need(pair[features.INPUT_MASK].shape == (len(PROBES), length))
    _need(loaded(tf.constant([], tf.string))[features.INPUT_MASK].shape[0] == 0)
    yield "packs one and two segments, flat and in words, to any length"


def check_encoder(folder: Path) -> Iterator[str]:
    """Yields what holds; raises `AssertionError` at what does not."""
    import tensorflow as tf

    from albert_tf2.config import AlbertConfig
    from albert_tf2.text.tokenization import Vocabulary

    loaded = saved_models.load(folder)
    config = AlbertConfig.from_json(
        loaded.config_file.asset_path.numpy().decode()
    )
    vocab_file = loaded.vocab_file.asset_path.numpy().decode()
    _need(Path(vocab_file).is_relative_to(folder), vocab_file)
    Vocabulary.load(vocab_file, size=config.vocab_size)
    inputs = {
        name: tf.constant(value)
        for name, value in probe_inputs(config.vocab_size).items()
    }
    outputs = loaded(inputs)
    layers = outputs[features.ENCODER_OUTPUTS]
    _need(len(layers) == config.num_hidden_layers)
    _need(outputs[features.SEQUENCE_OUTPUT].shape == (3, 9, config.hidden_size))
    _need(
        {value.dtype for value in [*layers, *_tensors(outputs)]} == {tf.float32}
    )
    live = bool(
        config.hidden_dropout_prob or config.attention_probs_dropout_prob
    )
    trained = loaded(inputs, training=True)[features.SEQUENCE_OUTPUT]
    moved = np.abs(trained - outputs[features.SEQUENCE_OUTPUT]).max() > 1e-4
    _need(live == moved)
    count = sum(int(np.prod(v.shape)) for v in loaded.trainable_variables)
    yield f"{count:,} trainable parameters, dropout {'live' if live else '0'}"

    expected = _expected(folder)
    outputs = dict(outputs)
    if hasattr(loaded, "mlm") and expected:
        positions = tf.constant(expected[features.MASKED_LM_POSITIONS])
        outputs |= loaded.mlm(
            {**inputs, features.MASKED_LM_POSITIONS: positions}
        )
    if hasattr(loaded, "sop"):
        outputs |= loaded.sop(inputs)
    for name, value in expected.items():
        if name in outputs:
            difference = _close(name, outputs[name], value, TOLERANCE)
            yield f"{name} differs from the model in memory by {difference:.1e}"


def _close(
    name: str, found: Any, expected: np.ndarray, tolerance: float
) -> float:
    """Returns the largest difference, which must be rounding's.

    Logits and scores may be of any size, and float32 rounds them by their own.
    """
    difference = float(np.abs(found - expected).max())
    size = max(1.0, float(np.abs(expected).max()))
    _need(difference < tolerance * size, (name, difference))
    return difference


def _tensors(outputs) -> list:
    return [v for v in outputs.values() if hasattr(v, "dtype")]


def _expected(folder: Path) -> dict[str, np.ndarray]:
    path = folder.parent / f"{folder.name}.{EXPECTED}"
    if not path.is_file():
        return {}
    with np.load(path) as arrays:
        return dict(arrays)


def check_serving(folder: Path) -> Iterator[str]:
    """Yields what holds; raises `AssertionError` at what does not."""
    import tensorflow as tf
    import tensorflow_text  # noqa: F401  registers the graph's operations

    loaded = saved_models.load(folder)
    signatures = loaded.signatures
    if hasattr(loaded, "task_file"):
        yield from _check_answers(folder, loaded)
        return
    texts = tf.constant(PROBES)
    embeddings = signatures["serving_default"](text=texts)["embedding"].numpy()
    np.testing.assert_allclose(
        np.linalg.norm(embeddings, axis=-1), 1, rtol=1e-4
    )
    same = signatures["similarity"](text_a=texts, text_b=texts)["similarity"]
    np.testing.assert_allclose(same, 1, rtol=1e-4)
    for name, value in _expected(folder).items():
        difference = _close(name, embeddings, value, TOLERANCE)
        yield f"{name} differs from the model in memory by {difference:.1e}"
    yield f"takes strings, returns embeddings of {embeddings.shape[-1]} numbers"


def _check_answers(folder: Path, loaded) -> Iterator[str]:
    """Checks a fine-tuned model's export."""
    import tensorflow as tf

    task_file = Path(loaded.task_file.asset_path.numpy().decode())
    _need(task_file.is_relative_to(folder), task_file)
    task = paths.read_json(task_file, dict)
    expected = _expected(folder)
    given = {
        name.removeprefix(GIVEN): tf.constant(expected.pop(name))
        for name in [*expected]
        if name.startswith(GIVEN)
    }
    answers = loaded.signatures["serving_default"](**given) if given else {}
    for name, value in expected.items():
        found = answers[name].numpy()
        if value.dtype.kind == "U":
            texts = np.char.decode(found.astype(bytes), "utf-8")
            _need(texts.tolist() == value.tolist(), name)
            whose = "model's own names" if name == "labels" else "predictor's"
            yield f"{name} are the {whose}"
            continue
        if value.dtype.kind == "i":
            _need(found.tolist() == value.tolist(), name)
            yield f"{name} are the predictor's"
            continue
        _need(found.shape == value.shape, name)
        if not value.size:  # no entity anywhere
            continue
        difference = _close(name, found, value, ANSWER_TOLERANCE)
        yield f"{name} differ from the predictor's by {difference:.1e}"
    yield f"takes strings, answers for {task['kind']} ({task['task']})"


CHECKS = {
    "preprocessor": check_preprocessor,
    "encoder": check_encoder,
    "serving": check_serving,
}


@dataclasses.dataclass(frozen=True)
class Export:
    """A SavedModel that is to be checked.

    Attributes:
        folder: Where it lies.
        kind: "preprocessor", "encoder" or "serving".
        expected: What it must answer: `expected_outputs` (an encoder),
            `expected_embeddings` or `expected_answers` (a serving model).
    """

    folder: paths.PathLike
    kind: str
    expected: dict[str, np.ndarray] | None = None


def verify(exports: Sequence[Export]) -> Iterator[tuple[Export, str]]:
    """Checks copies of SavedModels in one fresh process.

    Yields:
        The export, and a line per fact that was checked.

    Raises:
        UserError: If a file is damaged; or with the process's own words, if
            something does not hold.
    """
    # tf.text stays loaded, and an encoder must do without: it comes first.
    exports = sorted(exports, key=lambda export: export.kind != "encoder")
    if not exports:
        return
    with paths.temporary_folder("verify") as elsewhere:
        command = [sys.executable, "-m", __name__]
        for number, export in enumerate(exports):
            moved = Path(elsewhere) / f"moved{number}" / export.kind
            paths.copy_folder(export.folder, moved)
            with paths.named(export.folder, str(moved)):
                saved_models.check(moved)
            if export.expected:
                arrays: dict[str, Any] = dict(export.expected)
                np.savez(moved.parent / f"{export.kind}.{EXPECTED}", **arrays)
            command += ["--folder", str(moved), "--kind", export.kind]
        result = subprocess.run(
            command,
            capture_output=True,
            text=True,
            cwd=elsewhere,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
    # A list of texts each; whatever else a library prints is passed over.
    found = [line for line in result.stdout.splitlines() if line[:2] == '["']
    for export, lines in zip(exports, found, strict=False):
        yield from ((export, line) for line in json.loads(lines))
    if result.returncode:
        wrong = exports[min(len(found), len(exports) - 1)]
        reason = result.stderr.strip().splitlines()[-1:]
        raise UserError(
            f"{wrong.folder} does not hold what a {wrong.kind} must: "
            f"{' '.join(reason)}"
        )


def main(argv: Sequence[str] | None = None) -> int:
    parser = command_line.parser(
        __doc__, prog="python -m albert_tf2.hub_export.verify"
    )
    parser.add_argument(
        "--export_dir",
        metavar="FOLDER",
        help="what `export` wrote: all is checked",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        action="append",
        default=[],
        metavar="FOLDER",
        help="a SavedModel, to be checked in this process (repeatable)",
    )
    parser.add_argument(
        "--kind",
        choices=CHECKS,
        action="append",
        default=[],
        help="what --folder holds",
    )
    args = parser.parse_args(argv)
    if (args.export_dir is None) == (not args.folder):
        parser.error("give --export_dir, or --folder and --kind")
    if len(args.folder) != len(args.kind):
        parser.error("each --folder needs a --kind")
    for folder, kind in zip(args.folder, args.kind, strict=True):
        print(json.dumps(list(CHECKS[kind](folder.resolve()))), flush=True)
    if args.folder:
        return 0
    found = [
        Export(paths.join(args.export_dir, kind, version), kind)
        for kind in CHECKS
        for version in paths.names(paths.join(args.export_dir, kind))
        if version.isdecimal()
    ]
    if not found:
        raise UserError(
            f"{args.export_dir} holds no export: run `python -m "
            "albert_tf2.hub_export.export` first"
        )
    for export, line in verify(found):
        print(f"{export.kind}/{paths.name(export.folder)}: {line}")
    return 0


if __name__ == "__main__":
    command_line.run(main)
