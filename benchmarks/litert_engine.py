"""The engine without TensorFlow beside TensorFlow and ONNX Runtime.

One pre-trained model, real texts in their own order, as a service gets them:
ids to mean vectors, so many texts at a time, all contenders in turns. ONNX
Runtime gets the same weights by way of Hugging Face's export, fused by its own
optimizer, and rows padded to the longest of each batch. CPU seconds stand
beside the rate: of a busy machine they tell more.

    python benchmarks/litert_engine.py --input_file lcqmc/test.txt
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from albert_tf2 import command_line
from albert_tf2.tasks.encoding import Example, Packed, collate, pack

BATCHES, THREADS, TEXTS = (1, 8, 32), (1, 2), 384
NAMES = ("input_ids", "attention_mask", "token_type_ids")

Embed = Callable[[list[Packed]], np.ndarray]


def texts_of(path: Path, count: int) -> list[str]:
    """Returns the first cells of a table's rows, without its heading."""
    lines = path.read_text(encoding="utf-8").splitlines()[1:]
    return [line.split("\t")[0] for line in lines][:count]


def padded(part: list[Packed]) -> dict[str, np.ndarray]:
    """Returns a batch, padded to its longest text: int32 [B, T]."""
    examples = [Example(i, (packed,)) for i, packed in enumerate(part)]
    longest = max(example.length for example in examples)
    return collate(examples, size=len(part), length=longest)


def mean(sequence: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Returns mean vectors [B, H]."""
    weights = mask[:, :, np.newaxis].astype(np.float32)
    return (sequence * weights).sum(1) / weights.sum(1)


def litert(folder: Path, threads: int) -> dict[str, Embed]:
    from albert_tf2.prediction import litert, litert_file

    def embed(precision: str) -> Embed:
        path = folder / "litert" / "1" / litert_file.file_name(precision)
        model = litert.RowModel(litert_file.read(path), threads=threads)
        return lambda part: model.vectors(part, "mean")

    return {
        "litert": embed("fp32"),
        "litert-int8": embed("dynamic_int8"),
    }


def onnx_runtime(folder: Path, threads: int) -> dict[str, Embed]:
    """Returns Hugging Face's export of the model in ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads

    def embed(name: str) -> Embed:
        session = onnxruntime.InferenceSession(folder / name, options)

        def run(part: list[Packed]) -> np.ndarray:
            ids, mask, types = (
                x.astype(np.int64) for x in padded(part).values()
            )
            given = dict(zip(NAMES, (ids, mask, types), strict=True))
            (sequence,) = session.run(None, given)
            return mean(sequence, mask)

        return run

    return {
        "ONNX Runtime fp32": embed("fused.onnx"),
        "ONNX Runtime int8": embed("int8.onnx"),
    }


def write_onnx(source: str, folder: Path) -> None:
    import onnx
    import torch
    from onnxruntime.quantization import quantize_dynamic
    from onnxruntime.transformers.optimizer import optimize_model
    from transformers import AutoModel

    from albert_tf2 import convert

    copy = str(folder / "huggingface")
    convert.main(["--input", source, "--output", copy, "--to", "huggingface"])
    albert = AutoModel.from_pretrained(copy, attn_implementation="eager").eval()

    class Sequence_(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.albert = albert

        def forward(self, *inputs):
            return self.albert(**dict(zip(NAMES, inputs, strict=True)))[0]

    ids = torch.full([2, 16], 100)
    example = (ids, torch.ones_like(ids), torch.zeros_like(ids))
    plain, fused, int8 = (
        str(folder / f"{name}.onnx") for name in ("plain", "fused", "int8")
    )
    torch.onnx.export(
        Sequence_(),
        example,
        plain,
        input_names=list(NAMES),
        dynamic_axes={name: {0: "batch", 1: "length"} for name in NAMES},
        dynamo=False,
    )
    optimize_model(
        plain,
        model_type="bert",
        num_heads=albert.config.num_attention_heads,
        hidden_size=albert.config.hidden_size,
    ).save_model_to_file(fused)
    quantize_dynamic(
        fused,
        int8,
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )


def tensorflow(source: str) -> tuple[Any, dict[str, Embed]]:
    """Returns the predictor, and its vectors; its threads are TensorFlow's."""
    from albert_tf2 import Predictor

    predictor = Predictor(source)

    def embed(part: list[Packed]) -> np.ndarray:
        examples = [Example(i, (packed,)) for i, packed in enumerate(part)]
        return np.stack(predictor._vectors._vectors(examples, "mean"))

    return predictor, {"tensorflow": embed}


def measure(
    contenders: dict[str, Embed],
    sequences: list[Packed],
    batch: int,
    rounds: int,
) -> dict[str, tuple[float, float, np.ndarray]]:
    """Returns texts per second and per CPU second, and the vectors."""
    parts = [sequences[i : i + batch] for i in range(0, len(sequences), batch)]
    wall: dict[str, list[float]] = {name: [] for name in contenders}
    cpu: dict[str, list[float]] = {name: [] for name in contenders}
    vectors = {}
    for name, embed in contenders.items():
        vectors[name] = np.concatenate([embed(part) for part in parts])
    for _ in range(rounds):
        for name, embed in contenders.items():
            began, used = time.perf_counter(), time.process_time()
            for part in parts:
                embed(part)
            wall[name].append(time.perf_counter() - began)
            cpu[name].append(time.process_time() - used)
    count = len(sequences)
    return {
        name: (
            count / float(np.median(wall[name])),
            count / float(np.median(cpu[name])),
            vectors[name],
        )
        for name in contenders
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = command_line.parser(__doc__)
    add = parser.add_argument
    add("--model", default="starter", help="a pre-trained one")
    add("--input_file", type=Path, required=True, help="texts, then tabs")
    add("--texts", type=int, default=TEXTS)
    add("--rounds", type=int, default=7)
    add("--batches", type=int, nargs="+", default=BATCHES)
    add("--threads", type=int, nargs="+", default=THREADS)
    args = parser.parse_args(argv)
    from albert_tf2.hub_export import export
    from albert_tf2.prediction.similarity import cosines

    predictor, ours = tensorflow(args.model)
    tokenizer = predictor.tokenizer
    sequences = [
        pack([tokenizer.tokenize(text).ids], tokenizer.vocabulary, 128)
        for text in texts_of(args.input_file, args.texts)
    ]
    lengths = [len(packed.ids) for packed in sequences]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        export.main(
            ["--checkpoint", args.model, "--what", "litert"]
            + ["--export_dir", name]
        )
        write_onnx(args.model, folder)
        print(
            f"## {args.model}, {len(lengths)} texts of {np.mean(lengths):.1f} "
            "tokens, texts a second (a CPU second)\n"
        )
        print(
            "| threads | at a time | contender | texts/s | texts/CPU s |",
            end="",
        )
        print(" beside ONNX Runtime int8 | least cosine to TensorFlow |")
        print("|---" * 7 + "|", flush=True)
        for threads in args.threads:
            contenders = {
                **ours,
                **litert(folder, threads),
                **onnx_runtime(folder, threads),
            }
            for batch in args.batches:
                found = measure(contenders, sequences, batch, args.rounds)
                base, _, _ = found["ONNX Runtime int8"]
                expected = found["tensorflow"][2]
                for contender, (rate, of_cpu, vectors) in found.items():
                    least = cosines(expected, vectors).min()
                    print(
                        f"| {threads} | {batch} | {contender} | {rate:,.0f} | "
                        f"{of_cpu:,.0f} | {rate / base:.2f} | {least:.4f} |",
                        flush=True,
                    )
    return 0


if __name__ == "__main__":
    command_line.run(main)
