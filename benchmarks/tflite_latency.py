"""The TFLite models in one table: size, latency, memory, accuracy; and peers.

Latency is of batch 1 on real lengths, all contenders in turns, so that a busy
machine is as busy for each. Peak memory is of a process of its own, above what
importing TensorFlow takes. Accuracy is that of a fine-tuned classifier, fp32
and quantized, on the same rows. `--peers` adds ONNX Runtime, Hugging Face and
a model of BERT-base's size.

    python benchmarks/tflite_latency.py --config albert_tiny_zh \\
        --vocab_file vocab.txt --calibration_file sentences.txt --peers \\
        --classifier runs/lcqmc/model --dev_file lcqmc/dev.txt
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

import numpy as np

from albert_tf2 import command_line, features

LENGTHS = (64, 128)
THREADS = (1, 2)
ROUNDS = 12
CALIBRATION_ROWS = 100


def random_inputs(length: int) -> dict[str, np.ndarray]:
    """Returns a full row of ids: nothing is skipped."""
    rng = np.random.default_rng(0)
    ids = rng.integers(670, 7000, (1, length), np.int32)
    rows = (ids, np.ones_like(ids), np.zeros_like(ids))
    return dict(zip(features.ENCODER_INPUTS, rows, strict=True))


def take_turns(
    contenders: dict[str, Callable[[], object]], calls: int
) -> dict[str, tuple[float, float, float]]:
    """Returns the least, p50 and p95 in milliseconds.

    On a busy machine the least is nearest to what the machine can do.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
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


def runner(path: Path, threads: int, length: int) -> Callable[[], object]:
    from albert_tf2.hub_export.tflite import interpreter

    signature = interpreter(path, num_threads=threads).get_signature_runner()
    inputs = random_inputs(length)
    return lambda: signature(**inputs)


def peak_megabytes(path: Path, length: int) -> float:
    """Measures one model in a process of its own."""
    command = [sys.executable, __file__, "--measure", str(path)]
    result = subprocess.run(
        [*command, "--length", str(length)],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(result.stdout.splitlines()[-1])


def measure_peak(path: str, length: int) -> None:
    from albert_tf2.hub_export import tflite  # noqa: F401  what we subtract

    # Linux: forget the peak of the imports.
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    run = runner(Path(path), 1, length)
    for _ in range(3):
        run()
    print(json.dumps(_status("VmHWM") - before))


def _status(key: str) -> float:
    """Returns a figure of this process in megabytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith(f"{key}:"))
    return int(line.split()[1]) / 1024


def variants(args: argparse.Namespace, folder: Path) -> list[tuple]:
    """Writes every variant; returns (precision, kind, T, path)."""
    from albert_tf2 import AlbertConfig, AlbertPretrainer
    from albert_tf2.hub_export.tflite import PRECISIONS, export_tflite
    from albert_tf2.hub_export.tflite_variants import calibration_samples

    pretrainer = AlbertPretrainer(AlbertConfig.from_name(args.config))
    lines = args.calibration_file.read_text(encoding="utf-8").splitlines()
    written = []
    for precision in PRECISIONS:
        for length in (*LENGTHS, None):
            samples = calibration_samples(
                lines, args.vocab_file, seq_length=length or LENGTHS[-1]
            )
            path = export_tflite(
                pretrainer,
                folder / f"{precision}_{length}.tflite",
                args.vocab_file,
                precision=precision,
                seq_length=length,
                samples=samples[:20],
            )
            kind = "fixed" if length else "dynamic"
            for used in [length] if length else LENGTHS:
                written.append((precision, kind, used, path))
    return written


def print_variants(args: argparse.Namespace, folder: Path) -> None:
    print(f"## {args.config}, batch 1, milliseconds: least / p50 / p95\n")
    print("| precision | T | size MB | 1 thread | 2 threads | peak MB |")
    print("|---|---|---|---|---|---|")
    written = variants(args, folder)
    found = {
        threads: take_turns(
            {str(row): runner(row[3], threads, row[2]) for row in written},
            args.calls,
        )
        for threads in THREADS
    }
    for row in written:
        precision, kind, length, path = row
        cells = [
            "{:.2f} / {:.2f} / {:.2f}".format(*found[threads][str(row)])
            for threads in THREADS
        ]
        print(
            f"| {precision} | {length} {kind} | "
            f"{path.stat().st_size / 1e6:.1f} | {cells[0]} | {cells[1]} | "
            f"{peak_megabytes(path, length):.0f} |",
            flush=True,
        )


def bert_base(args: argparse.Namespace, folder: Path, precision: str) -> Path:
    """Writes a model of BERT-base's size: nothing shared."""
    from albert_tf2 import AlbertConfig, AlbertPretrainer
    from albert_tf2.hub_export.tflite import export_tflite

    config = dataclasses.replace(
        AlbertConfig.from_name("albert_base_zh"), parameter_sharing="none"
    )
    return export_tflite(
        AlbertPretrainer(config),
        folder / f"base_{precision}.tflite",
        args.vocab_file,
        precision=precision,
    )


def peers(args: argparse.Namespace, folder: Path) -> dict[str, Callable]:
    """Returns the same network in Hugging Face's and ONNX Runtime's hands."""
    import onnx
    import onnxruntime
    import torch
    from onnxruntime.quantization import quantize_dynamic
    from onnxruntime.transformers.optimizer import optimize_model
    from transformers import BertConfig, BertModel

    from albert_tf2 import AlbertConfig

    torch.set_num_threads(2)
    ours = AlbertConfig.from_name(args.config)
    bert = BertModel(
        BertConfig(
            vocab_size=ours.vocab_size,
            hidden_size=ours.hidden_size,
            num_hidden_layers=ours.num_hidden_layers,
            num_attention_heads=ours.num_attention_heads,
            intermediate_size=ours.intermediate_size,
            hidden_act="gelu_new",
            attn_implementation="eager",
        )
    ).eval()
    names = ["input_ids", "attention_mask", "token_type_ids"]
    arrays = [x.astype(np.int64) for x in random_inputs(128).values()]
    tensors = [torch.from_numpy(x) for x in arrays]

    class ByName(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.bert = bert

        def forward(self, *inputs):
            return self.bert(**dict(zip(names, inputs, strict=True)))[0]

    model = ByName()

    def eager():
        with torch.no_grad():
            return model(*tensors)

    plain, fused, int8 = (str(folder / f"{n}.onnx") for n in "pfq")
    torch.onnx.export(
        model, tuple(tensors), plain, input_names=names, dynamo=False
    )
    optimize_model(
        plain,
        model_type="bert",
        num_heads=ours.num_attention_heads,
        hidden_size=ours.hidden_size,
    ).save_model_to_file(fused)
    quantize_dynamic(
        fused,
        int8,
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2

    def session(path):
        loaded = onnxruntime.InferenceSession(path, options)
        inputs = dict(zip(names, arrays, strict=True))
        return lambda: loaded.run(None, inputs)

    return {
        "HF eager": eager,
        "ONNX Runtime fp32, fused": session(fused),
        "ONNX Runtime int8, fused": session(int8),
    }


def print_peers(args: argparse.Namespace, folder: Path) -> None:
    from albert_tf2 import AlbertConfig, AlbertPretrainer, flops
    from albert_tf2.hub_export.tflite import export_tflite

    pretrainer = AlbertPretrainer(AlbertConfig.from_name(args.config))
    contenders = {}
    for precision in ("fp32", "dynamic_int8"):
        path = folder / f"peer_{precision}.tflite"
        export_tflite(pretrainer, path, args.vocab_file, precision=precision)
        contenders[f"TFLite {precision}"] = runner(path, 2, 128)
    contenders |= peers(args, folder)
    for precision in ("fp32", "dynamic_int8"):
        path = bert_base(args, folder, precision)
        contenders[f"BERT-base, TFLite {precision}"] = runner(path, 2, 128)
    work = flops.forward_flops(pretrainer.config, 128)

    peaks = []

    def product():
        peaks.append(flops.measured_peak(size=2048))

    contenders["(product of 2048 x 2048)"] = product
    found = take_turns(contenders, max(1, args.calls // 4))
    limit = 1e3 * work / max(peaks)
    print("\n## T = 128, 2 threads, in turns\n")
    print("| contender | least ms | p50 ms | p95 ms | least / limit |")
    print("|---|---|---|---|---|")
    print(f"| fp32 matrix limit | {limit:.2f} | | | 1.00 |")
    for name, (least, p50, p95) in found.items():
        if name.startswith("("):
            continue
        print(
            f"| {name} | {least:.2f} | {p50:.2f} | {p95:.2f} "
            f"| {least / limit:.2f} |"
        )


def print_accuracy(args: argparse.Namespace, folder: Path) -> None:
    """Compares the quantized classifiers on the rows of `--dev_file`."""
    import tensorflow as tf

    from albert_tf2 import AlbertPretrainer
    from albert_tf2.hub_export.preprocessor import Preprocessor
    from albert_tf2.hub_export.tflite import (
        PRECISIONS,
        export_tflite,
        interpreter,
    )
    from albert_tf2.tasks import encoders

    _, model, loaded, lengths = encoders.load(args.classifier)
    lines = args.dev_file.read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines]
    rows = [row for row in rows if row[-1].isdigit()]  # no heading
    rows = rows[: args.rows + CALIBRATION_ROWS]  # the last only calibrate
    first, second, labels = zip(*rows, strict=True)
    preprocessor = Preprocessor(loaded.vocab_file)
    length = lengths.max_seq_length
    packed = preprocessor.bert_pack_inputs(
        [preprocessor.tokenize(tf.constant(side)) for side in (first, second)],
        seq_length=length,
    )
    inputs = [
        {name: value.numpy()[i : i + 1] for name, value in packed.items()}
        for i in range(len(rows))
    ]
    judged = len(rows) - CALIBRATION_ROWS
    wanted = np.array([int(label) for label in labels])[:judged]
    in_memory = model.predict(packed, verbose=0).argmax(axis=-1)[:judged]
    print(f"\n## Accuracy on {judged} rows of {args.dev_file.name}\n")
    print("| precision | accuracy % | points lost | answers that differ |")
    print("|---|---|---|---|")
    base = 100 * np.mean(in_memory == wanted)
    print(f"| TensorFlow fp32 | {base:.2f} | | |")
    pretrainer = AlbertPretrainer(loaded.config)  # the classifier has its own
    for precision in PRECISIONS:
        path = export_tflite(
            pretrainer,
            folder / f"classifier_{precision}.tflite",
            loaded.vocab_file,
            output="classifier",
            precision=precision,
            seq_length=length,
            classifier=lambda x: model(x, training=False),
            samples=inputs[judged:],
        )
        signature = interpreter(path, num_threads=2).get_signature_runner()
        answers = np.array(
            [signature(**row)["classifier"].argmax() for row in inputs[:judged]]
        )
        accuracy = 100 * np.mean(answers == wanted)
        differ = int(np.sum(answers != in_memory))
        print(
            f"| TFLite {precision} | {accuracy:.2f} | {base - accuracy:+.2f} "
            f"| {differ} |",
            flush=True,
        )


def main(argv: Sequence[str] | None = None) -> int:
    parser = command_line.parser(__doc__)
    add = parser.add_argument
    add("--config", default="albert_tiny_zh")
    add("--vocab_file", type=Path)
    add("--calibration_file", type=Path, help="real sentences, one a line")
    add("--calls", type=int, default=20, help=f"in each of {ROUNDS} rounds")
    add("--skip_variants", action="store_true")
    add("--peers", action="store_true")
    add("--classifier", type=Path, help="`model/` of a fine-tuning run")
    add("--dev_file", type=Path, help="rows: text, text, label")
    add("--rows", type=int, default=2000)
    add("--measure", help=argparse.SUPPRESS)
    add("--length", type=int, default=128, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.measure:
        measure_peak(args.measure, args.length)
        return 0
    if args.classifier and not args.dev_file:
        parser.error("--classifier needs --dev_file")
    with tempfile.TemporaryDirectory() as folder:
        if not args.skip_variants:
            if not (args.vocab_file and args.calibration_file):
                parser.error("give --vocab_file and --calibration_file")
            print_variants(args, Path(folder))
        if args.peers:
            print_peers(args, Path(folder))
        if args.classifier:
            print_accuracy(args, Path(folder))
    return 0


if __name__ == "__main__":
    command_line.run(main)
