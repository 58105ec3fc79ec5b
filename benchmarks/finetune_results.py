"""Fine-tune on real files, from given and from random weights: one table.

Expects the folders lcqmc, tnews_fewclue, thucnews_titles, ocnli, cluener and
cmrc2018 in --data_dir. Each task is tuned with the same settings (`ROWS`, a
small budget) from --init_checkpoint and from random weights of the same
configuration, so the table shows what pre-training is worth. With several
seeds (--set num_seeds=3) the figure is their mean and spread. A second call
resumes.

    python benchmarks/finetune_results.py --data_dir datasets \\
      --init_checkpoint runs/pretrain --workdir runs/results
"""

import argparse
import collections
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from albert_tf2 import command_line, finetune, paths
from albert_tf2.errors import UserError
from albert_tf2.tasks import base, registry

START, SCRATCH = "pre-trained", "random"


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of the table: a task and where its splits lie."""

    task: str
    folder: str
    train: str | None = None  # None: where the task looks for it
    test: str | None = None
    has_dev: bool = True
    settings: tuple[str, ...] = ()


ROWS = {
    "lcqmc": Row(
        "lcqmc",
        "lcqmc",
        settings=(
            "max_train_rows=20000",
            "max_eval_rows=2000",
            "max_seq_length=64",
            "global_batch_size=64",
            "learning_rate=2e-4",
            "num_train_epochs=3",
        ),
    ),
    "tnews": Row(
        "tnews",
        "tnews_fewclue",
        settings=("learning_rate=3e-4", "num_train_epochs=10"),
    ),
    # The training files of the next two are not public in small pieces: the
    # dev file is learned, the other one measured.
    "thucnews_titles": Row(
        "csv",
        "thucnews_titles",
        "dev.txt",
        "test.txt",
        has_dev=False,
        settings=(
            "max_seq_length=48",
            "learning_rate=3e-4",
            "num_train_epochs=3",
        ),
    ),
    "cmrc2018": Row(
        "cmrc2018",
        "cmrc2018",
        "dev.json",
        "trial.json",
        has_dev=False,
        settings=(
            "max_train_rows=1600",
            "max_seq_length=256",
            "doc_stride=160",
            "global_batch_size=16",
            "learning_rate=3e-4",
            "num_train_epochs=1",
        ),
    ),
    "ocnli": Row(
        "ocnli",
        "ocnli",
        "train.10k.json",
        settings=(
            "max_seq_length=64",
            "learning_rate=2e-4",
            "num_train_epochs=2",
        ),
    ),
    "cluener": Row(
        "cluener",
        "cluener",
        settings=(
            "max_seq_length=64",
            "learning_rate=5e-4",
            "num_train_epochs=3",
        ),
    ),
}


def run_row(
    name: str, start: str, args: argparse.Namespace, config_file: Path
) -> dict[str, Any]:
    """Fine-tunes one row from one start; returns its figures."""
    row = ROWS[name]
    folder = Path(args.data_dir) / row.folder
    recipe = finetune.read_recipe(row.task, None, [*row.settings, *args.set])
    task = registry.create(row.task, labels=recipe.labels)
    for split, path in (("train", row.train), ("test", row.test)):
        if path is not None:
            task.use_file(split, folder / path)
    data = finetune.read_data(task, folder, recipe)
    if not row.has_dev:
        data.dev = []
    tune = (
        finetune.fine_tune
        if recipe.num_seeds == 1
        else finetune.fine_tune_seeds
    )
    results = tune(
        task,
        data,
        init_checkpoint=args.init_checkpoint
        if start == START
        else f"config:{config_file}",
        recipe=recipe,
        workdir=Path(args.workdir) / f"{name}-{start}",
        vocab_file=args.vocab_file,
    )
    scored_on = "test" if results.get("test") else "dev"
    scored = results[scored_on]
    runs = results.get("runs", [results])
    return {
        "task": name,
        "start": start,
        "train_rows": len(data.train),
        "steps": runs[0]["steps"],
        "seconds": round(sum(run["seconds"] for run in runs)),
        "seeds": len(runs),
        "scored_on": scored_on,
        "metric": task.metric,
        "figures": {
            metric: _percent(scored[metric])
            for metric in (task.metric, "em")
            if metric in scored
        },
        "rows": len(getattr(data, scored_on)),
        "one_answer": _one_answer(task, getattr(data, scored_on)),
    }


def _percent(value: float | dict[str, Any]) -> str:
    """Returns a figure, or the mean and spread of several seeds' figures."""
    if not isinstance(value, dict):
        return f"{100 * value:.1f}"
    return f"{100 * value['mean']:.1f} ± {100 * value['spread']:.1f}"


def _one_answer(task: base.Task, rows: Sequence[Any]) -> float | None:
    """Returns the accuracy of always giving the commonest label."""
    if task.kind != base.CLASSIFICATION:
        return None
    counts = collections.Counter(
        row.label for row in rows if row.label is not None
    )
    return max(counts.values()) / sum(counts.values()) if counts else None


def table(results: Sequence[dict[str, Any]]) -> str:
    """Returns the results as Markdown."""
    lines = [
        "| task | start | train rows | steps | seconds | measured on | "
        "figure | one answer for all |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in results:
        figure = ", ".join(f"{n} {shown}" for n, shown in r["figures"].items())
        alone = (
            "" if r["one_answer"] is None else f"{100 * r['one_answer']:.1f}"
        )
        lines.append(
            f"| {r['task']} | {r['start']} | {r['train_rows']:,} | "
            f"{r['steps']:,} | {r['seconds']:,} | {r['scored_on']}, "
            f"{r['rows']:,} rows | {figure} | {alone} |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line."""
    parser = command_line.parser(
        __doc__, "python benchmarks/finetune_results.py"
    )
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--init_checkpoint", required=True)
    parser.add_argument("--vocab_file", help="default: beside the checkpoint")
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--tasks", nargs="+", default=list(ROWS))
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE"
    )
    args = parser.parse_args(argv)
    unknown = sorted(set(args.tasks) - set(ROWS))
    if unknown:
        raise UserError(
            f"--tasks: unknown `{unknown[0]}`; known: {', '.join(ROWS)}"
        )
    from albert_tf2 import checkpoints

    pretrained = checkpoints.load_pretrained(args.init_checkpoint)
    args.vocab_file = args.vocab_file or str(pretrained.vocab_file)
    config_file = Path(args.workdir) / "albert_config.json"
    config_file.parent.mkdir(parents=True, exist_ok=True)
    pretrained.config.to_json(config_file)
    results = []
    for name in args.tasks:
        for start in (START, SCRATCH):
            print(f"\n{name}, {start} weights")
            results.append(run_row(name, start, args, config_file))
            paths.write_json(Path(args.workdir) / "results.json", results)
    print("\n" + table(results))
    (Path(args.workdir) / "results.md").write_text(table(results) + "\n")
    print(json.dumps({"seconds": sum(r["seconds"] for r in results)}))
    return 0


if __name__ == "__main__":
    command_line.run(main)
