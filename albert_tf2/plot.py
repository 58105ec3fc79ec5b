"""Draws the curves of a run into one PNG: losses, accuracies, rate, speed.

Reads `metrics.jsonl` and `evaluation.jsonl` of a pre-training run, also while
it is running.

    python -m albert_tf2.plot run
"""

import os
from collections.abc import Sequence
from typing import Any

from albert_tf2 import command_line, paths
from albert_tf2.errors import UserError, require
from albert_tf2.training import identity, run_folder

OUTPUT = "curves.png"
# title, key of both files, unit
PANELS = (
    ("masked words: loss", "mlm_loss", "nats"),
    ("masked words: accuracy", "mlm_accuracy", "share"),
    ("sentence order: loss", "sop_loss", "nats"),
    ("sentence order: accuracy", "sop_accuracy", "share"),
    ("learning rate", "learning_rate", ""),
    ("speed", "tokens_per_second", "tokens/s"),
)
TRAIN_COLOR, HELD_OUT_COLOR, BASELINE_COLOR = "#4477aa", "#cc3311", "#777777"


def main(argv: Sequence[str] | None = None) -> int:
    """Draws; returns the exit code."""
    parser = command_line.parser(__doc__, prog="python -m albert_tf2.plot")
    parser.add_argument("workdir", help="the folder of a run")
    parser.add_argument(
        "--output",
        metavar="FILE",
        help=f"the PNG to write (default: WORKDIR/{OUTPUT})",
    )
    arguments = parser.parse_args(argv)
    run_folder.expect(arguments.workdir, identity.PRETRAINING)
    output = arguments.output or paths.join(arguments.workdir, OUTPUT)
    print(draw(arguments.workdir, output))
    return 0


def draw(workdir: paths.PathLike, output: paths.PathLike) -> paths.PathLike:
    """Draws the run's curves.

    Args:
        workdir: The folder of a run.
        output: The PNG to write.

    Returns:
        The path of the PNG.
    """
    from albert_tf2.training.run_log import EVALUATION, METRICS, read_rows

    require("plot", ["matplotlib"], "plot")
    metrics = paths.join(workdir, METRICS)
    training = read_rows(metrics)
    held_out = read_rows(paths.join(workdir, EVALUATION))
    if not training:
        raise UserError(
            f"{metrics} has no rows yet: is this the workdir of a "
            "pre-training run?"
        )
    # Drawing needs no screen, and leaves a caller's own figures alone.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 9), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, key, unit) in zip(
        figure.subplots(3, 2).flat, PANELS, strict=True
    ):
        _panel(axes, key, training, held_out)
        axes.set(title=title, xlabel="step", ylabel=unit)
    figure.suptitle(f"{_name(workdir)}: pre-training")
    _, ending = os.path.splitext(paths.name(output))
    with paths.atomic_file(output, "wb") as stream:
        figure.savefig(stream, format=ending[1:] or "png", dpi=110)
    return output


def _name(workdir: paths.PathLike) -> str:
    """Returns a run's name, also of `.` and `..`."""
    if paths.is_remote(workdir):
        return paths.name(workdir)
    return paths.name(os.path.abspath(paths.local(workdir)))


def _panel(axes, key: str, training: list[dict], held_out: list[dict]) -> None:
    axes.plot(*_series(training, key), color=TRAIN_COLOR, label="training")
    if held_out and key in held_out[0]:
        axes.plot(
            *_series(held_out, key),
            color=HELD_OUT_COLOR,
            marker="o",
            markersize=3,
            label="held-out",
        )
    baseline = {"mlm_loss": "unigram_loss"}.get(key)
    if held_out and baseline:
        axes.axhline(
            held_out[-1][baseline],
            color=BASELINE_COLOR,
            linestyle=":",
            label="guessing by character frequency",
        )
    if key == "sop_accuracy":
        axes.axhline(0.5, color=BASELINE_COLOR, linestyle=":", label="chance")
    if key not in ("learning_rate", "tokens_per_second"):
        axes.legend(frameon=False, fontsize=8)
    axes.grid(alpha=0.25)


def _series(rows: list[dict[str, Any]], key: str) -> tuple[list, list]:
    rows = [row for row in rows if key in row]
    return [row["step"] for row in rows], [row[key] for row in rows]


if __name__ == "__main__":
    command_line.run(main)
