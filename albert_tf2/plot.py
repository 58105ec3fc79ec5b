"""Draws the curves of a run into one PNG: losses, figures, rate, speed.

Reads `metrics.jsonl` and `evaluation.jsonl` of a pre-training or fine-tuning
run, also while it is running.

    python -m albert_tf2.plot run
"""

import os
from collections.abc import Sequence
from typing import Any

from albert_tf2 import command_line, paths
from albert_tf2.errors import UserError, require
from albert_tf2.training import identity, run_folder

OUTPUT = "curves.png"
# Of pre-training: title, key of both files, unit.
PANELS = (
    ("masked words: loss", "mlm_loss", "nats"),
    ("masked words: accuracy", "mlm_accuracy", "share"),
    ("sentence order: loss", "sop_loss", "nats"),
    ("sentence order: accuracy", "sop_accuracy", "share"),
    ("learning rate", "learning_rate", ""),
    ("speed", "tokens_per_second", "tokens/s"),
)
# Of fine-tuning; the task's own figures follow.
TUNING_PANELS = (
    ("loss", "loss", ""),
    ("learning rate", "learning_rate", ""),
    ("norm of the gradients", "gradient_norm", ""),
    ("speed", "steps_per_second", "steps/s"),
)
_MOST_DRAWN = 1e100
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
    run_folder.expect(
        arguments.workdir, identity.PRETRAINING, identity.FINETUNING
    )
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
            f"{metrics} has no rows yet: is this the workdir of a run?"
        )
    kind = run_folder.expect(workdir, identity.PRETRAINING, identity.FINETUNING)
    panels: tuple[tuple[str, str, str], ...] = PANELS
    if kind == identity.FINETUNING:
        panels = (*TUNING_PANELS, *_figures(held_out))
    # Drawing needs no screen, and leaves a caller's own figures alone.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = -(-len(panels) // 2)
    figure = Figure(figsize=(12, 3 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    places = figure.subplots(rows, 2).flat
    for axes, (title, key, unit) in zip(places, panels, strict=False):
        _panel(axes, key, training, held_out)
        axes.set(title=title, xlabel="step", ylabel=unit)
    for axes in places[len(panels) :]:
        axes.remove()
    figure.suptitle(f"{_name(workdir)}: {kind}")
    _, ending = os.path.splitext(paths.name(output))
    with paths.atomic_file(output, "wb") as stream:
        figure.savefig(stream, format=ending[1:] or "png", dpi=110)
    return output


def _name(workdir: paths.PathLike) -> str:
    """Returns a run's name, also of `.` and `..`."""
    if paths.is_remote(workdir):
        return paths.name(workdir)
    return paths.name(os.path.abspath(paths.local(workdir)))


def _figures(held_out: list[dict]) -> list[tuple[str, str, str]]:
    """Returns a panel for each figure of a task; numbers of rows are none."""
    return [
        (f"dev: {key.replace('_', ' ')}", key, "")
        for key, value in (held_out[0] if held_out else {}).items()
        if isinstance(value, float)
    ]


def _panel(axes, key: str, training: list[dict], held_out: list[dict]) -> None:
    if any(key in row for row in training):
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
    guessed = held_out[-1].get(baseline) if held_out and baseline else None
    if _is_drawn(guessed):
        axes.axhline(
            guessed,
            color=BASELINE_COLOR,
            linestyle=":",
            label="guessing by character frequency",
        )
    if key == "sop_accuracy":
        axes.axhline(0.5, color=BASELINE_COLOR, linestyle=":", label="chance")
    if len(axes.lines) > 1:
        axes.legend(frameon=False, fontsize=8)
    axes.grid(alpha=0.25)


def _series(rows: list[dict[str, Any]], key: str) -> tuple[list, list]:
    rows = [
        row
        for row in rows
        if _is_drawn(row["step"]) and _is_drawn(row.get(key))
    ]
    return [row["step"] for row in rows], [row[key] for row in rows]


def _is_drawn(value: Any) -> bool:
    """Whether a value is a number that an axis can hold.

    A lost loss is null in the log, and leaves a gap.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) < _MOST_DRAWN


if __name__ == "__main__":
    command_line.run(main)
