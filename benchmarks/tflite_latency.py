"""Every TFLite variant in one table per model: size, speed, memory, accuracy.

A model is `model/` of a fine-tuning run on pairs, or the name of a
configuration: that has random weights, which are as fast as any, and no
accuracy. Latency is of batch 1 on full rows, all variants in turns, so that a
busy machine is as busy for each. Peak memory is of a process of its own, above
what importing TensorFlow takes. Accuracy is compared with the same classifier
in TensorFlow on the same rows. The rows after those calibrate full int8.

    python benchmarks/tflite_latency.py runs/lcqmc/model albert_small_zh \\
        --vocab_file vocab.txt --dev_file lcqmc/dev.txt --max_rows 2000
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measuring import peak_from_here  # beside this

from albert_tf2 import command_line, features
from albert_tf2.errors import UserError
from albert_tf2.text.tokenization import Tokenizer

MODELS = ("albert_tiny_zh", "albert_small_zh")
PRECISIONS = ("fp32", "fp16", "dynamic_int8", "int8")
LENGTHS = (64, 128)
THREADS = (1, 2)
ROUNDS = 12
CALIBRATION_ROWS = 100

Inputs = dict[str, np.ndarray]


def random_inputs(length: int) -> Inputs:
    """Returns a full row of ids: nothing is skipped."""
    rng = np.random.default_rng(0)
    ids = rng.integers(100, 200, (1, length), np.int32)
    rows = (ids, np.ones_like(ids), np.zeros_like(ids))
    return dict(zip(features.ENCODER_INPUTS, rows, strict=True))


def runner(path: Path, threads: int, length: int) -> Callable[[], object]:
    """Returns a call of the model at `path` on a full row."""
    from albert_tf2.hub_export.tflite import interpreter

    signature = interpreter(path, num_threads=threads).get_signature_runner()
    inputs = random_inputs(length)
    return lambda: signature(**inputs)


def take_turns(
    contenders: dict[Any, Callable[[], object]], calls: int
) -> dict[Any, tuple[float, float, float]]:
    """Returns the least, p50 and p95 in milliseconds.

    On a busy machine the least is nearest to what the machine can do.
    """
    times: dict[Any, list[float]] = {name: [] for name in contenders}
    for run in contenders.values():
        run()
    for _ in range(ROUNDS):
        for name, run in contenders.items():
            for _ in range(calls):
                start = time.perf_counter()
                run()
                times[name].append(1e3 * (time.perf_counter() - start))
    return {
        name: tuple(np.percentile(values, [0, 50, 95]))
        for name, values in times.items()
    }


def peak_megabytes(path: Path, length: int) -> float:
    """Measures one model in a process of its own."""
    command = [sys.executable, __file__, "--measure", str(path), str(length)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(result.stdout.splitlines()[-1])


def measure_peak(path: str, length: str) -> None:
    from albert_tf2.hub_export import tflite  # noqa: F401  what we subtract

    peak = peak_from_here()
    run = runner(Path(path), 1, int(length))
    for _ in range(3):
        run()
    print(json.dumps(peak()))


class Pairs:
    """The labelled pairs of a file, cut by one vocabulary."""

    def __init__(self, path: Path, tokenizer: Tokenizer, max_rows: int):
        """Reads tab-separated text, text, label; a heading is no label."""
        from albert_tf2.hub_export.preprocessor import Preprocessor

        lines = path.read_text(encoding="utf-8").splitlines()
        rows = [line.split("\t") for line in lines]
        rows = [row for row in rows if len(row) == 3 and row[-1].isdigit()]
        rows = rows[: max_rows + CALIBRATION_ROWS]
        if len(rows) < 2:
            raise UserError(
                f"{path} must hold lines of text, text and label, with tabs "
                f"between. Received: {len(rows)} such lines"
            )
        *self._sides, labels = zip(*rows, strict=True)
        # At most half of a short file calibrates.
        calibrating = min(CALIBRATION_ROWS, len(rows) // 2)
        self.judged = min(max_rows, len(rows) - calibrating)
        self.labels = np.array(labels[: self.judged], int)
        self._preprocessor = Preprocessor(tokenizer)

    def packed(self, length: int) -> Inputs:
        """Returns all rows as encoder inputs, int32 [rows, T]."""
        import tensorflow as tf

        tokens = [
            self._preprocessor.tokenize(tf.constant(side))
            for side in self._sides
        ]
        packed = self._preprocessor.bert_pack_inputs(tokens, seq_length=length)
        return {name: value.numpy() for name, value in packed.items()}


@dataclasses.dataclass
class Subject:
    """A model to measure: what `export_tflite` takes, and its judge."""

    name: str
    pretrainer: Any
    tokenizer: Tokenizer
    pairs: Pairs
    classifier: Callable | None = None  # logits [B, classes]

    def answers(self, length: int) -> np.ndarray:
        """Returns TensorFlow's own answers on the judged pairs, int [n]."""
        inputs = self.pairs.packed(length)
        batches = [
            self.classifier({k: v[i : i + 64] for k, v in inputs.items()})
            for i in range(0, self.pairs.judged, 64)
        ]
        return np.concatenate(batches).argmax(-1)[: self.pairs.judged]


def load(source: str, args: argparse.Namespace) -> Subject:
    """Reads a fine-tuned model, or makes one of a configuration."""
    from albert_tf2 import AlbertPretrainer
    from albert_tf2.config import load_model_config
    from albert_tf2.finetuning import encoders
    from albert_tf2.prediction.tuned_model import tuned_folder

    folder = tuned_folder(source)
    if folder is None:
        if args.vocab_file is None:
            raise UserError(f"{source} has no vocabulary: pass --vocab_file")
        config, classifier = load_model_config(source), None
        tokenizer = Tokenizer(args.vocab_file)
    else:
        _, model, loaded, _ = encoders.load(folder)
        config, tokenizer = loaded.config, loaded.tokenizer
        if config is None:
            raise UserError(f"{source} came from a hub encoder: not for TFLite")

        def classifier(inputs):
            return model(inputs, training=False)

    return Subject(
        source,
        AlbertPretrainer(config),  # a classifier has an encoder of its own
        tokenizer,
        Pairs(args.dev_file, tokenizer, args.max_rows),
        classifier,
    )


@dataclasses.dataclass(frozen=True)
class Variant:
    """One row of the table."""

    precision: str
    kind: str  # "fixed" or "dynamic"
    length: int
    path: Path


def write_variants(
    subject: Subject, args: argparse.Namespace, folder: Path
) -> list[Variant]:
    """Exports all; a model of dynamic length is a row for each length."""
    from albert_tf2.hub_export.tflite import export_tflite

    written = []
    for precision in args.precisions:
        for length in (*args.lengths, None):
            packed = subject.pairs.packed(length or max(args.lengths))
            rows = range(subject.pairs.judged, len(next(iter(packed.values()))))
            path = export_tflite(
                subject.pretrainer,
                folder / f"{precision}_{length}.tflite",
                subject.tokenizer,
                output="classifier" if subject.classifier else "embedding",
                precision=precision,
                seq_length=length,
                classifier=subject.classifier,
                samples=[
                    {name: v[i : i + 1] for name, v in packed.items()}
                    for i in rows
                ],
                overwrite=True,
            )
            kind = "fixed" if length else "dynamic"
            for used in [length] if length else args.lengths:
                written.append(Variant(precision, kind, used, path))
    return written


def judge(
    subject: Subject, variant: Variant, expected: np.ndarray
) -> tuple[str, ...]:
    """Returns accuracy, points lost and answers that differ, as cells."""
    from albert_tf2.hub_export.tflite import interpreter

    signature = interpreter(variant.path, num_threads=2).get_signature_runner()
    inputs = subject.pairs.packed(variant.length)
    answers = np.array(
        [
            signature(**{k: v[i : i + 1] for k, v in inputs.items()})[
                "classifier"
            ].argmax()
            for i in range(subject.pairs.judged)
        ]
    )
    right, wanted = (
        100 * np.mean(found == subject.pairs.labels)
        for found in (answers, expected)
    )
    differ = int(np.sum(answers != expected))
    return f"{right:.2f}", f"{wanted - right:+.2f}", str(differ)


def print_table(
    subject: Subject, args: argparse.Namespace, folder: Path
) -> None:
    print(f"## {subject.name}, batch 1, milliseconds: least / p50 / p95\n")
    heads = ["precision", "T", "MB", "1 thread", "2 threads", "peak MB"]
    if subject.classifier:
        heads += ["accuracy %", "points lost", "answers that differ"]
    print(f"| {' | '.join(heads)} |")
    print("|---" * len(heads) + "|", flush=True)
    variants = write_variants(subject, args, folder)
    found = {
        threads: take_turns(
            {v: runner(v.path, threads, v.length) for v in variants}, args.calls
        )
        for threads in THREADS
    }
    expected = {}
    if subject.classifier:
        expected = {length: subject.answers(length) for length in args.lengths}
    for v in variants:
        judged: tuple[str, ...] = ()
        if subject.classifier:
            judged = judge(subject, v, expected[v.length])
        speeds = [
            "{:.2f} / {:.2f} / {:.2f}".format(*found[threads][v])
            for threads in THREADS
        ]
        row = [
            v.precision,
            f"{v.length} {v.kind}",
            f"{v.path.stat().st_size / 1e6:.1f}",
            *speeds,
            f"{peak_megabytes(v.path, v.length):.0f}",
            *judged,
        ]
        print(f"| {' | '.join(row)} |", flush=True)
    for length, answers in expected.items():
        right = np.mean(answers == subject.pairs.labels)
        print(
            f"\nTensorFlow, {length} tokens: {right:.2%} of "
            f"{subject.pairs.judged} rows."
        )
    print()


def main(argv: Sequence[str] | None = None) -> int:
    parser = command_line.parser(__doc__)
    add = parser.add_argument
    add(
        "models",
        nargs="*",
        default=list(MODELS),
        metavar="MODEL",
        help=f"folders or names (default: {' '.join(MODELS)})",
    )
    add("--vocab_file", type=Path, help="of models that are named")
    add("--dev_file", type=Path, help="rows: text, text, label")
    add("--max_rows", type=int, default=2000, help="to judge (default: 2000)")
    add("--calls", type=int, default=20, help=f"in each of {ROUNDS} rounds")
    add("--lengths", type=int, nargs="+", default=LENGTHS)
    add("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    add("--measure", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.measure:
        measure_peak(*args.measure)
        return 0
    if args.dev_file is None:
        parser.error("give --dev_file: its texts calibrate full int8 too")
    for path in (args.vocab_file, args.dev_file):
        if path is not None and not path.is_file():
            raise UserError(f"{path} does not exist: check the path")
    for source in args.models:
        with tempfile.TemporaryDirectory() as folder:
            print_table(load(source, args), args, Path(folder))
    return 0


if __name__ == "__main__":
    command_line.run(main)
