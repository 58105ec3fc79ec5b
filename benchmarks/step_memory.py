"""What a pre-training step costs, in memory and time, as it grows.

Grows the length, the depth (all layers share their weights) and the rows, each
from the same step: ours, ours with layers computed again
(`gradient_checkpointing`), and Hugging Face's, whose ALBERT cannot do that.
Same batch without padding, masked positions gathered, AdamW, no dropout,
float32. Each step is measured in a process of its own: the peak of its memory
above what the process held with its model, wall and CPU seconds (medians). What
is in WORKDIR/memory.json is not measured again. Linux alone.

    python benchmarks/step_memory.py --workdir runs/memory \\
      --figure docs/figures/step_cost.png
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import measuring  # beside this
import pretrain_step

from albert_tf2 import command_line, paths

RESULTS = "memory.json"
OURS, RECOMPUTED = "ours", "ours, recomputed"
HF = "Hugging Face"
CONTENDERS = (OURS, RECOMPUTED, HF)
BASE = {"length": 512, "layers": 4, "rows": 2}
GROWING = {
    "length": (128, 256, 512, 1024, 2048),
    "layers": (2, 4, 8, 16),
    "rows": (1, 2, 4, 8),
}
# Of the figure: what is drawn of each step, and how.
FIGURES = {"peak_mb": "peak, MB", "cpu": "CPU seconds a step"}
STYLES = {
    OURS: {"color": "#4477aa", "linestyle": "-"},
    RECOMPUTED: {"color": "#4477aa", "linestyle": "--"},
    HF: {"color": "#cc3311", "linestyle": "-"},
}
LABELS = {"length": "tokens of a row", "layers": "layers", "rows": "rows"}


def points() -> list[dict[str, int]]:
    """Returns the steps that are measured, each once."""
    found: list[dict[str, int]] = []
    for axis, values in GROWING.items():
        for value in values:
            point = BASE | {axis: value}
            if point not in found:
                found.append(point)
    return found


def name_of(point: Mapping[str, int]) -> str:
    return f"{point['rows']} x {point['length']}, {point['layers']} layers"


def config_of(point: Mapping[str, int], model: str):
    """Returns the configuration of a step: positions enough, no dropout."""
    from albert_tf2 import AlbertConfig

    return AlbertConfig.from_name(model).replace(
        num_hidden_layers=point["layers"],
        max_position_embeddings=max(512, point["length"]),
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )


def sizes_of(point: Mapping[str, int]) -> dict[str, int]:
    length = point["length"]
    return {"length": length, "predictions": max(1, length * 15 // 100)}


def ours(config, point, recompute: bool) -> Callable[[], float]:
    """Returns the step that `albert_tf2.pretrain` runs, with AdamW."""
    import tensorflow as tf

    from albert_tf2.keras_api import keras
    from albert_tf2.model.albert import AlbertPretrainer
    from albert_tf2.pretraining.step import METRICS, PretrainStep
    from albert_tf2.training.optimization import create_optimizer

    keras.utils.set_random_seed(0)  # the same losses, whatever is kept
    step = tf.function(
        PretrainStep(
            AlbertPretrainer(config),
            create_optimizer("adamw", 1e-4),
            recompute=recompute,
        )
    )
    values = pretrain_step.tensors(config, point["rows"], **sizes_of(point))
    loss = METRICS.index("loss")
    return lambda: float(step(values)[loss])


def hugging_face(config, point) -> Callable[[], float]:
    """Returns the same step of `AlbertForPreTraining`, eager."""
    import torch

    model, loss_of = pretrain_step.hugging_face_loss(config)
    values = pretrain_step.batch(config, point["rows"], **sizes_of(point))
    given = [
        torch.tensor(values[name])
        for name in (
            "input_word_ids",
            "input_type_ids",
            "masked_lm_positions",
            "masked_lm_ids",
        )
    ] + [torch.tensor(values["sentence_order_labels"][:, 0])]
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=True)

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(*given)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    return step


def measure(asked: SimpleNamespace) -> dict[str, Any]:
    """Measures one contender's step, in this process."""
    config = config_of(asked.point, asked.model)
    if asked.contender == HF:
        step = hugging_face(config, asked.point)
    else:
        step = ours(config, asked.point, asked.contender == RECOMPUTED)
    peak = measuring.peak_from_here()
    losses = [step()]  # compiles, and makes the optimizer's moments
    walls, cpus = [], []
    for _ in range(asked.steps):
        wall, cpu = time.perf_counter(), time.process_time()
        losses.append(step())
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return {
        "peak_mb": peak(),
        "wall": statistics.median(walls),
        "cpu": statistics.median(cpus),
        "losses": losses,
    }


def in_own_process(contender: str, point, args) -> dict[str, Any]:
    asked = {"contender": contender, "point": point}
    asked |= {"model": args.model, "steps": args.steps}
    used = measuring.run_and_measure(
        [sys.executable, __file__, "--only", json.dumps(asked)]
    )
    return json.loads(used.output.strip().splitlines()[-1])


def table(results: Mapping[str, Any]) -> str:
    """Returns the figures as Markdown."""
    lines = [
        "| step | contender | peak MB | ms | CPU ms |",
        "|---|---|---|---|---|",
    ]
    for point in points():
        before = name_of(point)
        for contender, found in results.get(before, {}).items():
            lines.append(
                f"| {before if contender == OURS else ''} | {contender} | "
                f"{found['peak_mb']:,.0f} | {found['wall'] * 1e3:,.0f} | "
                f"{found['cpu'] * 1e3:,.0f} |"
            )
    return "\n".join(lines)


def draw(results: Mapping[str, Any], file: paths.PathLike) -> None:
    """Draws memory and CPU time against length, depth and rows, into a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 6.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(FIGURES), len(GROWING), squeeze=False)
    for column, axis in enumerate(GROWING):
        others = [f"{n} {LABELS[name]}" for name, n in BASE.items()
                  if name != axis]  # fmt: skip
        for row, (key, label) in enumerate(FIGURES.items()):
            panel = axes[row][column]
            for contender, style in STYLES.items():
                line = list(_line(results, axis, contender, key))
                if line:
                    panel.plot(*zip(*line, strict=True), label=contender,
                               marker="o", markersize=3, **style)  # fmt: skip
            panel.set_xlabel(f"{LABELS[axis]} ({', '.join(others)})")
            panel.set_ylabel(label)
            panel.set_ylim(bottom=0)
            panel.grid(alpha=0.3)
    axes[0][0].legend()
    with paths.atomic_file(file, "wb") as stream:
        figure.savefig(stream, dpi=110, format="png")


def _line(
    results: Mapping[str, Any], axis: str, contender: str, key: str
) -> Iterator[tuple[int, float]]:
    """Yields what was measured of one contender along one axis."""
    for value in GROWING[axis]:
        found = results.get(name_of(BASE | {axis: value}), {})
        if contender in found:
            yield value, found[contender][key]


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = command_line.parser(__doc__, "python benchmarks/step_memory.py")
    add = parser.add_argument
    add("--workdir", default="runs/memory", help="default: runs/memory")
    add("--model", default="albert_tiny_zh_google")
    add("--contenders", nargs="+", default=list(CONTENDERS), metavar="NAME",
        choices=CONTENDERS)  # fmt: skip
    add("--points", nargs="+", metavar="POINT",
        choices=[name_of(point) for point in points()],
        help="as '2 x 512, 4 layers'; default: all")  # fmt: skip
    command_line.add_number(
        parser, "--steps", 3, "Steps to measure.", least=1, most=1000
    )
    add("--figure", metavar="FILE.png", help="draw them there")
    add("--only", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line."""
    args = _parse(argv)
    if args.only:
        found = measure(SimpleNamespace(**json.loads(args.only)))
        print(json.dumps(found))
        return 0
    file = Path(args.workdir) / RESULTS
    file.parent.mkdir(parents=True, exist_ok=True)
    results = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    for point in points():
        name = name_of(point)
        if args.points and name not in args.points:
            continue
        row = results.setdefault(name, {})
        for contender in args.contenders:
            if contender not in row:
                row[contender] = in_own_process(contender, point, args)
                results["machine"] = measuring.machine()
                paths.write_json(file, results)
    print(table(results))
    if args.figure:
        draw(results, args.figure)
    return 0


if __name__ == "__main__":
    command_line.run(main)
