"""Where the time of a pre-training step goes, beside what the machine could do.

oneDNN says how long each of its primitives took. A product of M x K and K x N
takes 2 MNK operations and reads and writes (MK + KN + MN) numbers, and so no
less time than the larger of operations / (speed of a product of 2048 x 2048,
same type) and bytes / (speed of a copy of 256 MB), both measured in the same
process. What is left of the step are passes over memory by XLA and TensorFlow.

Operations take turns here, each with all cores; a step of a real run has two
at once where it can. Runs the step of `pretrain_step.py` as it is, then
without fused passes. x86, and a processor for which TensorFlow takes oneDNN.

    python benchmarks/step_roofline.py --precision mixed_bfloat16
"""

import argparse
import collections
import json
import math
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import pretrain_step  # beside this

from albert_tf2 import command_line

STEPS = 10
BYTES = {"f32": 4, "bf16": 2}
PEAK = "2048x2048:2048x2048"  # the limit's own product


class Primitive(NamedTuple):
    """One kind of work: what, which of oneDNN's implementations, sizes."""

    kind: str
    implementation: str
    sizes: str
    type: str


class Limits(NamedTuple):
    """What the machine can do at best."""

    flops: float  # per second
    bandwidth: float  # bytes per second, read and written


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table of the step, and how long it takes unfused."""
    parser = command_line.parser(__doc__)
    parser.add_argument("--model", default="albert_tiny_zh_google")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--only", choices=("fused", "plain"), help="in here")
    arguments = parser.parse_args(argv)
    if arguments.only:
        print(json.dumps(measure(arguments)))
        return 0
    told, fused = run(arguments, "fused")
    _, plain = run(arguments, "plain")
    limits = Limits(fused["flops"], fused["bandwidth"])
    print(table(told, fused, limits))
    print(
        f"\nA step takes {fused['wall'] * 1e3:.0f} ms "
        f"({fused['cpu'] * 1e3:.0f} CPU ms), without fused passes "
        f"{plain['wall'] * 1e3:.0f} ({plain['cpu'] * 1e3:.0f}). Limits: "
        f"{limits.flops / 1e9:.0f} GFLOP/s, {limits.bandwidth / 1e9:.1f} GB/s."
    )
    return 0


def run(
    arguments: argparse.Namespace, form: str
) -> tuple[dict[Primitive, list[float]], dict[str, float]]:
    """Makes steps in a process of their own.

    Returns:
        The milliseconds of each primitive's calls, and what `measure` found.
    """
    done = subprocess.run(
        [sys.executable, __file__, "--only", form]
        + ["--model", arguments.model, "--precision", arguments.precision]
        + ["--batch_size", str(arguments.batch_size)],
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "ONEDNN_VERBOSE": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    found = next(line for line in reversed(lines) if line.startswith("{"))
    return primitives(lines), json.loads(found)


def primitives(lines: Iterable[str]) -> dict[Primitive, list[float]]:
    """Reads what oneDNN printed: the milliseconds of each call."""
    found = collections.defaultdict(list)
    for line in lines:
        if not line.startswith("onednn_verbose") or ",exec,cpu," not in line:
            continue
        kind, implementation, *rest = line.split(",exec,cpu,")[1].split(",")
        types = re.search(r"src[:_](\w+?):", rest[1])
        sizes, milliseconds = rest[-2:]
        if sizes != PEAK:
            key = Primitive(
                kind, implementation, sizes, types[1] if types else ""
            )
            found[key].append(float(milliseconds))
    return dict(found)


def work(primitive: Primitive) -> tuple[float, float]:
    """Returns the operations and bytes of a product; (0, 0) for others."""
    inner = re.fullmatch(r"mb(\d+)ic(\d+)oc(\d+)", primitive.sizes)
    if inner:
        rows, depth, columns = map(int, inner.groups())
        batch = 1
    elif re.fullmatch(r"[\dx]+:[\dx]+", primitive.sizes):
        left, right = (
            [int(size) for size in side.split("x")]
            for side in primitive.sizes.split(":")
        )
        *outer, rows, depth = left
        batch, columns = math.prod(outer), right[-1]
    else:
        return 0.0, 0.0
    numbers = batch * (rows * depth + depth * columns + rows * columns)
    size = BYTES.get(primitive.type, 4)
    return 2.0 * batch * rows * depth * columns, float(numbers * size)


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """Makes the steps in this process, and measures the machine."""
    import numpy as np
    import tensorflow as tf

    from albert_tf2 import AlbertConfig
    from albert_tf2.model import flops, fusion

    if arguments.only == "plain":
        fusion.suits_devices = lambda: False
    config = AlbertConfig.from_name(arguments.model)
    half = arguments.precision == "mixed_bfloat16"
    tf.config.threading.set_inter_op_parallelism_threads(1)
    step = pretrain_step.ours(
        config, arguments.batch_size, "bf16" if half else ""
    )
    walls, cpus = [], []
    for _ in range(STEPS):
        wall, cpu = time.perf_counter(), time.process_time()
        step()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    source = np.ones(2**25)
    goal, copies = np.empty_like(source), []
    for _ in range(3):
        began = time.perf_counter()
        np.copyto(goal, source)
        copies.append(time.perf_counter() - began)
    return {
        "wall": statistics.median(walls[3:]),
        "cpu": statistics.median(cpus[3:]),
        "flops": flops.measured_peak(
            tf.bfloat16 if half else tf.float32, size=2048
        ),
        "bandwidth": 2 * source.nbytes / min(copies),
    }


def table(
    told: dict[Primitive, list[float]],
    fused: dict[str, float],
    limits: Limits,
    rows: int = 16,
) -> str:
    """Returns the dearest primitives as Markdown, and what they leave."""
    lines = [
        "| primitive | sizes | calls a step | ms a step | bound, ms | share |",
        "|---|---|---|---|---|---|",
    ]
    costs = []
    for primitive, calls in told.items():
        count = len(calls) / STEPS
        operations, moved = work(primitive)
        bound = max(operations / limits.flops, moved / limits.bandwidth)
        costs.append(
            (statistics.median(calls) * count, bound * 1e3 * count, count)
            + (primitive,)
        )
    costs.sort(reverse=True)
    for ms, bound, count, primitive in costs[:rows]:
        share = f"{bound / ms:.0%}" if bound else ""
        lines.append(
            f"| {primitive.kind}, {primitive.implementation or 'gemm'} "
            f"| {primitive.sizes} | {count:g} | {ms:.1f} "
            f"| {f'{bound:.1f}' if bound else ''} | {share} |"
        )
    products = [cost for cost in costs if cost[1]]
    others = sum(cost[0] for cost in costs if not cost[1])
    whole = fused["wall"] * 1e3
    total, bounds = (sum(cost[i] for cost in products) for i in (0, 1))
    lines += [
        f"| **all products** | | | {total:.1f} | {bounds:.1f} "
        f"| {bounds / total:.0%} |",
        f"| softmax, transposes | | | {others:.1f} | | |",
        f"| passes by XLA and TensorFlow | | | {whole - total - others:.1f} "
        "| | |",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    command_line.run(main)
