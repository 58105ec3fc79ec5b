"""TFLite beside its peers: ONNX Runtime, Hugging Face, BERT-base's size.

One network, batch 1, 128 tokens, 2 threads, all contenders in turns, so that
a busy machine is as busy for each. The limit is the network's arithmetic at
the speed of the fastest product of 2048 x 2048 seen in the same run.

    python benchmarks/tflite_peers.py --config albert_tiny_zh \\
        --vocab_file vocab.txt
"""

import argparse
import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from tflite_latency import random_inputs, runner, take_turns  # beside this

from albert_tf2 import command_line

LENGTH, THREADS = 128, 2


def bert_base(args: argparse.Namespace, folder: Path, precision: str) -> Path:
    """Writes a model of BERT-base's size: nothing shared."""
    from albert_tf2 import AlbertConfig, AlbertPretrainer
    from albert_tf2.hub_export.tflite import export_tflite
    from albert_tf2.text.tokenization import Tokenizer

    config = dataclasses.replace(
        AlbertConfig.from_name("albert_base_zh"), parameter_sharing="none"
    )
    return export_tflite(
        AlbertPretrainer(config),
        folder / f"base_{precision}.tflite",
        Tokenizer(args.vocab_file),
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

    torch.set_num_threads(THREADS)
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
    arrays = [x.astype(np.int64) for x in random_inputs(LENGTH).values()]
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
    options.intra_op_num_threads = THREADS

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
    from albert_tf2 import AlbertConfig, AlbertPretrainer
    from albert_tf2.hub_export.tflite import export_tflite
    from albert_tf2.model import flops
    from albert_tf2.text.tokenization import Tokenizer

    tokenizer = Tokenizer(args.vocab_file)
    pretrainer = AlbertPretrainer(AlbertConfig.from_name(args.config))
    contenders = {}
    for precision in ("fp32", "dynamic_int8"):
        path = folder / f"peer_{precision}.tflite"
        export_tflite(pretrainer, path, tokenizer, precision=precision)
        contenders[f"TFLite {precision}"] = runner(path, THREADS, LENGTH)
    contenders |= peers(args, folder)
    for precision in ("fp32", "dynamic_int8"):
        path = bert_base(args, folder, precision)
        contenders[f"BERT-base, TFLite {precision}"] = runner(
            path, THREADS, LENGTH
        )
    work = flops.forward_flops(pretrainer.config, LENGTH)

    peaks = []

    def product():
        peaks.append(flops.measured_peak(size=2048))

    contenders["(product of 2048 x 2048)"] = product
    found = take_turns(contenders, args.calls)
    limit = 1e3 * work / max(peaks)
    print(f"## {args.config}, T = {LENGTH}, {THREADS} threads, in turns\n")
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


def main(argv: Sequence[str] | None = None) -> int:
    parser = command_line.parser(__doc__)
    add = parser.add_argument
    add("--config", default="albert_tiny_zh")
    add("--vocab_file", type=Path, required=True)
    add("--calls", type=int, default=5, help="in each round")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        print_peers(args, Path(folder))
    return 0


if __name__ == "__main__":
    command_line.run(main)
