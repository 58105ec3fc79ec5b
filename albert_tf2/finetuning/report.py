"""What a fine-tuned model gets wrong, written so that one can act on it.

In a run's folder, for each split with labels:

    report/dev.json            interval of the figure, each class, confusion
    report/dev_errors.jsonl    the wrong rows, the surest first
    report/dev_confusion.png   the confusion as a picture (needs matplotlib)
"""

import json
from collections.abc import Callable, Sequence
from importlib import util
from typing import Any

from albert_tf2 import paths
from albert_tf2.errors import UserError, install_line
from albert_tf2.tasks import base, outcomes
from albert_tf2.tasks.outcomes import Outcome

FOLDER = "report"
# The figure of `Task.score` that `outcomes.micro_f1` is.
FIGURES = {
    base.CLASSIFICATION: "accuracy",
    base.MULTI_LABEL: "micro_f1",
    base.TAGGING: "f1",
}
# More labels make a picture that nobody can read.
MOST_DRAWN_LABELS = 40
# Fonts that have Chinese characters: of Linux, Windows and macOS.
CHINESE_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC"),
    *("WenQuanYi Micro Hei", "WenQuanYi Zen Hei"),
    *("Microsoft YaHei", "SimHei", "PingFang SC", "Heiti SC"),
)
# What a comparison reads of a report.
_COMPARED = {
    "figure": str,
    "value": float,
    "low": float,
    "high": float,
    "rows": int,
    "errors": int,
}
_TEXTS = ("text", "text_a", "text_b")


def write(
    workdir: paths.PathLike,
    split: str,
    task: base.Task,
    rows: Sequence[Any],
    predictions: Sequence[dict[str, Any]],
    *,
    say: Callable[[str], None] = print,
) -> None:
    """Writes the report of a split, and says the gist of it.

    Nothing is written for rows without labels, and for kinds of tasks whose
    answers are no classes (scores, spans of a text, choices).
    """
    found = task.outcomes(rows, predictions)
    if not found:
        return
    figure = FIGURES[task.kind]
    low, high = outcomes.interval(found)
    classes, wrong = outcomes.by_class(found), outcomes.errors(found)
    report: dict[str, Any] = {
        "figure": figure,
        "value": outcomes.micro_f1(found),
        "low": low,
        "high": high,
        "confidence": outcomes.CONFIDENCE,
        "rows": len(found),
        "errors": len(wrong),
        "classes": classes,
    }
    folder = paths.join(workdir, FOLDER)
    if task.kind == base.CLASSIFICATION:
        labels, counts = outcomes.confusion(found, task.labels)
        report["confusion"] = {"labels": labels, "counts": counts.tolist()}
        if len(labels) > MOST_DRAWN_LABELS:
            say(f"no picture of the confusion: {len(labels)} labels are many")
        elif not util.find_spec("matplotlib"):
            say(
                "no picture of the confusion: matplotlib is missing ("
                f"{install_line('plot')})"
            )
        else:
            picture = paths.join(folder, f"{split}_confusion.png")
            draw_confusion(labels, counts, picture)
    with paths.atomic_file(errors_file(workdir, split)) as stream:
        for outcome in wrong:
            line = _error(outcome, rows[outcome.row])
            stream.write(json.dumps(line, ensure_ascii=False) + "\n")
    # Last, so that a report is whole where this file is.
    paths.write_json(paths.join(folder, f"{split}.json"), report)
    say(
        f"{split}: {figure} {report['value']:.4f}, {low:.4f} to {high:.4f} in "
        f"95 % of {outcomes.RESAMPLES:,} resamples; worst class "
        f"{classes[0]['class']!r} (F1 {classes[0]['f1']:.4f}); "
        f"{len(wrong):,} wrong rows in {errors_file(workdir, split)}"
    )


def write_predictions(
    workdir: paths.PathLike, split: str, predictions: list[dict[str, Any]]
) -> None:
    """Writes `predictions/<split>.jsonl`: a line per row, in their order."""
    path = paths.join(workdir, "predictions", f"{split}.jsonl")
    with paths.atomic_file(path) as stream:
        for prediction in predictions:
            stream.write(json.dumps(prediction, ensure_ascii=False) + "\n")


def errors_file(workdir: paths.PathLike, split: str) -> str:
    """Returns where the wrong rows of a split are written."""
    return paths.join(workdir, FOLDER, f"{split}_errors.jsonl")


def _error(outcome: Outcome, row: Any) -> dict[str, Any]:
    texts = {name: getattr(row, name, None) for name in _TEXTS}
    return {
        "row": outcome.row,
        **{name: text for name, text in texts.items() if text is not None},
        "expected": _spelled(outcome.expected),
        "found": _spelled(outcome.found),
        "probability": outcome.probability,
    }


def _spelled(items: frozenset[tuple[str, str]]) -> list[str]:
    return [f"{name} {place}".strip() for name, place in sorted(items)]


def read(
    workdir: paths.PathLike, split: str
) -> tuple[dict[str, Any], set[int]]:
    """Returns a split's report and the numbers of its wrong rows."""
    path = paths.join(workdir, FOLDER, f"{split}.json")
    if not paths.exists(path):
        raise UserError(
            f"{workdir} has no report of its {split} rows: fine-tune with "
            "labelled ones (classes, several labels, or entities)"
        )
    report = paths.read_json(path, dict)
    for key, kind in _COMPARED.items():
        if type(report.get(key)) is not kind:
            raise UserError(
                f"{path}: `{key}` is damaged: fine-tune again in another "
                "workdir"
            )
    lines = paths.read_text(errors_file(workdir, split)).splitlines()
    wrong = set()
    for number, line in enumerate(lines, 1):
        where = f"{errors_file(workdir, split)}, line {number}"
        row = paths.parse_json(line, where, dict).get("row")
        if type(row) is not int:
            raise UserError(f"{where}: `row` is damaged: fine-tune again")
        wrong.add(row)
    return report, wrong


def draw_confusion(
    labels: Sequence[str], counts: Any, output: paths.PathLike
) -> None:
    """Draws counts [expected, found] as a PNG, each row in shares of itself.

    Labels in Chinese become their numbers where no font can write them.
    """
    from matplotlib import font_manager
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    size = max(4.0, 0.45 * len(labels) + 2)
    figure = Figure(figsize=(size, size), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    shares = counts / counts.sum(1, keepdims=True).clip(1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in _cells(counts):
        if count:
            color = "white" if shares[row, column] > 0.5 else "black"
            axes.text(
                column, row, str(count), ha="center", va="center", color=color
            )
    installed = font_manager.get_font_names()
    font = next((name for name in CHINESE_FONTS if name in installed), None)
    if font is None and not all(map(str.isascii, labels)):
        axes.set_title("labels by number, in the order of the .json beside it")
        labels = [str(number) for number in range(len(labels))]
    ways = {"family": font} if font else {}
    axes.set_xticks(range(len(labels)), labels, rotation=90, **ways)
    axes.set_yticks(range(len(labels)), labels, **ways)
    axes.set(xlabel="answered", ylabel="right")
    with paths.atomic_file(output, "wb") as stream:
        figure.savefig(stream, format="png", dpi=110)


def _cells(counts: Any) -> Any:
    """Yields ((row, column), count) of a matrix."""
    for row, values in enumerate(counts.tolist()):
        for column, count in enumerate(values):
            yield (row, column), count
