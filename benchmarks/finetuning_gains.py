"""What each setting for the last points is worth, and what it costs.

Fine-tunes each task with its plain recipe and with each setting of `SETTINGS`,
with several seeds, and says on which tasks a setting pays: the differences to
the plain runs of the same seeds have a mean that chance would hardly bring
(Student's t, one-sided, 5 %), a tenth of a point at least. What pays on less
than two tasks is not worth a place in a recipe.

Expects the folders lcqmc, thucnews_titles, tnews_fewclue and ocnli in
--data_dir. Every run is a line of WORKDIR/runs.jsonl; a second call makes those
that are missing, so the whole may take several sittings (--minutes).

    python benchmarks/finetuning_gains.py --data_dir datasets \\
      --init_checkpoint runs/pretrain --workdir runs/gains --minutes 60
"""

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from albert_tf2 import command_line, finetune, paths
from albert_tf2.errors import UserError
from albert_tf2.tasks import registry

RUNS_FILE, TABLE_FILE = "runs.jsonl", "table.md"
PLAIN, DISTILLED = "plain", "distilled"


@dataclasses.dataclass(frozen=True)
class Row:
    """A task: where its splits lie, and its plain recipe.

    The figure is always that of `test`, which no run has seen: without dev
    rows a run keeps its last weights.
    """

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
            "max_train_rows=10000",
            "max_eval_rows=2000",
            "max_seq_length=64",
            "global_batch_size=32",
            "learning_rate=1e-4",
            "num_train_epochs=3",
        ),
    ),
    "thucnews_titles": Row(
        "csv",
        "thucnews_titles",
        "dev.txt",
        "test.txt",
        has_dev=False,
        settings=(
            "max_seq_length=48",
            "learning_rate=1e-4",
            "num_train_epochs=3",
        ),
    ),
    "tnews": Row(
        "tnews",
        "tnews_fewclue",
        settings=("learning_rate=1e-4", "num_train_epochs=10"),
    ),
    "ocnli": Row(
        "ocnli",
        "ocnli",
        "train.10k.json",
        "dev.json",
        has_dev=False,
        settings=(
            "max_seq_length=64",
            "learning_rate=1e-4",
            "num_train_epochs=3",
        ),
    ),
}
SETTINGS: dict[str, tuple[str, ...]] = {
    PLAIN: (),
    "learning_rate=2e-5": ("learning_rate=2e-5",),
    "learning_rate=6e-5": ("learning_rate=6e-5",),
    "learning_rate=2e-4": ("learning_rate=2e-4",),
    # R-Drop lives on dropout, which the models for Chinese have not inside,
    # so what dropout does alone is told as well.
    "hidden_dropout=0.1": ("hidden_dropout_prob=0.1",),
    "r_drop=1": ("hidden_dropout_prob=0.1", "r_drop=1"),
    "accumulation=2": ("gradient_accumulation_steps=2",),
    DISTILLED: (),  # from the plain runs' mean, or --teacher
}
# Student's t, one-sided, 5 %, by degrees of freedom.
T_VALUES = (6.31, 2.92, 2.35, 2.13, 2.02, 1.94, 1.89, 1.86, 1.83, 1.81)
# Points of the figure. Two seeds may differ by the same three rows, and then
# nothing looks like chance.
LEAST_GAIN = 0.1
TASKS_TO_PAY_ON = 2
ONE_SEED = "one seed tells nothing"
SEED_OF_ROWS = 1  # draws `max_train_rows`


def data_of(row: Row, data_dir: str, recipe: Any) -> tuple[Any, Any]:
    """Returns the task and its rows."""
    folder = Path(data_dir) / row.folder
    task = registry.from_recipe(row.task, recipe)
    for split, name in (("train", row.train), ("test", row.test)):
        if name is not None:
            task.use_file(split, folder / name)
    # Seeds are compared on the same rows, and share a teacher of them.
    recipe = dataclasses.replace(recipe, seed=SEED_OF_ROWS)
    data = finetune.read_data(task, folder, recipe, say=lambda line: None)
    if not row.has_dev:
        data.dev = []
        data.sources.pop("dev", None)
    return task, data


def one_run(
    name: str, setting: str, seed: int, args: argparse.Namespace
) -> dict[str, Any]:
    """Makes one run; returns its line of the file."""
    from albert_tf2.keras_api import keras

    row = ROWS[name]
    overrides = [*row.settings, *args.set, *SETTINGS[setting], f"seed={seed}"]
    if setting == DISTILLED:
        overrides.append(f"teacher={teacher_of(name, args)}")
    recipe = finetune.read_recipe(row.task, None, overrides)
    task, data = data_of(row, args.data_dir, recipe)
    workdir = folder_of(name, setting, seed, args)
    results = finetune.fine_tune(
        task,
        data,
        init_checkpoint=args.init_checkpoint,
        recipe=recipe,
        workdir=workdir,
        vocab_file=args.vocab_file,
        say=lambda line: None,
    )
    # Ten settings of four tasks would fill a disk; models of plain runs are
    # teachers, and results are what a second call reads.
    unneeded = ["checkpoints", "tensorboard", "predictions", "report"]
    unneeded += [] if setting == PLAIN else ["model"]
    for part in unneeded:
        if (workdir / part).exists():
            paths.remove_folder(workdir / part)
    keras.backend.clear_session()  # or memory grows from run to run
    return {
        "metric": task.metric,
        "figure": results["test"][task.metric],
        "seconds": results["seconds"],
        "steps": results["steps"],
        "train_rows": len(data.train),
        "test_rows": len(data.test),
    }


def folder_of(
    name: str, setting: str, seed: int, args: argparse.Namespace
) -> Path:
    return Path(args.workdir) / name / setting / f"seed-{seed}"


def teacher_of(name: str, args: argparse.Namespace) -> str:
    """Returns a teacher: one that was named, or the plain runs together."""
    if name in args.teachers:
        return args.teachers[name]
    path = Path(args.workdir) / name / "teacher.npy"
    if not path.exists():
        import numpy as np

        mean = np.mean([logits_of(name, s, args) for s in args.seeds], 0)
        with paths.atomic_file(path, "wb") as stream:
            np.save(stream, mean)
    return str(path)


def logits_of(name: str, seed: int, args: argparse.Namespace) -> Any:
    """Returns what a plain run says of its training rows: [rows, n]."""
    import numpy as np

    from albert_tf2.finetuning.teacher import open_teacher
    from albert_tf2.finetuning.tuner import lengths_of
    from albert_tf2.text.tokenization import Tokenizer
    from albert_tf2.training.distribution import create_strategy

    recipe = finetune.read_recipe(
        ROWS[name].task, None, [*ROWS[name].settings, *args.set]
    )
    task, data = data_of(ROWS[name], args.data_dir, recipe)
    folder = folder_of(name, PLAIN, seed, args) / "model"
    tokenizer = Tokenizer(folder)
    teacher = open_teacher(
        str(folder),
        task=task,
        tokenizer=tokenizer,
        rows=len(data.train),
        batch_size=recipe.eval_batch_size,
        strategy=create_strategy("one_device"),
        say=lambda line: None,
    )
    examples = task.encode(data.train, tokenizer, lengths_of(recipe))
    return np.stack(teacher.logits(data.train, examples))


def key_of(name: str, setting: str, seed: int, args: Any) -> dict[str, Any]:
    """Returns what a line must say to count as this run's."""
    return {
        "task": name,
        "setting": setting,
        "seed": seed,
        "recipe": [*ROWS[name].settings, *args.set, *SETTINGS[setting]],
        "teacher": args.teachers.get(name) if setting == DISTILLED else None,
        "start": args.start,
    }


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Returns the runs so far; a line that a kill cut off is none."""
    found = []
    for line in path.read_text("utf-8").splitlines() if path.exists() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def line_of(
    lines: Sequence[dict[str, Any]], key: dict[str, Any]
) -> dict[str, Any] | None:
    """Returns a run's line, if it was made."""
    for line in lines:
        if all(line.get(name) == value for name, value in key.items()):
            return line
    return None


def verdict(gains: Sequence[float]) -> str:
    """Says whether differences of paired runs are more than chance."""
    if len(gains) < 2:
        return ONE_SEED
    mean = statistics.fmean(gains)
    error = statistics.stdev(gains) / len(gains) ** 0.5
    bound = T_VALUES[min(len(gains) - 1, len(T_VALUES)) - 1] * error
    bound = max(bound, LEAST_GAIN)
    if mean > bound:
        return "pays"
    return "costs" if mean < -bound else "no difference seen"


def table(lines: Sequence[dict[str, Any]], args: argparse.Namespace) -> str:
    """Returns what is known so far as Markdown."""
    rows = [
        "| task | setting | figure | gain | time | verdict |",
        "|---|---|---|---|---|---|",
    ]
    judged: dict[str, list[str]] = {}
    for name in args.tasks:
        plain = {
            seed: line_of(lines, key_of(name, PLAIN, seed, args))
            for seed in args.seeds
        }
        for setting in args.settings:
            pairs = [
                (line, plain[seed])
                for seed in args.seeds
                if (line := line_of(lines, key_of(name, setting, seed, args)))
                and plain[seed]
            ]
            if not pairs:
                continue
            figures = [100 * line["figure"] for line, _ in pairs]
            gains = [100 * (a["figure"] - b["figure"]) for a, b in pairs]
            # The fastest of each: what else a machine does only slows down.
            slower = min(line["seconds"] for line, _ in pairs) / min(
                other["seconds"] for _, other in pairs
            )
            told = "" if setting == PLAIN else verdict(gains)
            judged.setdefault(setting, []).append(told)
            gain = "" if setting == PLAIN else _spread(gains, "+.2f")
            metric = pairs[0][0]["metric"]
            rows.append(
                f"| {name} | {setting} | {metric} {_spread(figures, '.2f')} | "
                f"{gain} | {slower:.2f} | {told} |"
            )
    for setting, verdicts in judged.items():
        if setting != PLAIN:
            rows.append(f"\n{setting}: {_summary(verdicts, len(args.tasks))}")
    return "\n".join(rows)


def _summary(verdicts: Sequence[str], tasks: int) -> str:
    """Says whether a setting is worth a place in a recipe."""
    count = verdicts.count("pays")
    if count >= TASKS_TO_PAY_ON:
        return f"pays ({count} of {tasks} tasks)"
    if len(verdicts) < tasks or ONE_SEED in verdicts:
        return "not measured on all tasks yet"
    return f"does not pay ({count} of {tasks} tasks)"


def _spread(values: Sequence[float], form: str) -> str:
    mean = format(statistics.fmean(values), form)
    if len(values) < 2:
        return mean
    return f"{mean} ± {statistics.stdev(values):.2f}"


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = command_line.parser(
        __doc__, "python benchmarks/finetuning_gains.py"
    )
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--init_checkpoint", required=True)
    parser.add_argument("--vocab_file", help="default: beside the checkpoint")
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--tasks", nargs="+", default=list(ROWS))
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS))
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=[1, 2, 3], metavar="N"
    )
    parser.add_argument(
        "--teacher",
        action="append",
        default=[],
        metavar="TASK=FOLDER",
        help="of a task (default: the plain runs' mean)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a change of all recipes",
    )
    command_line.add_number(
        parser,
        "--minutes",
        None,
        "Begin no run after so long.",
        kind=float,
        above=0.0,
        most=1e6,
    )
    args = parser.parse_args(argv)
    args.teachers = dict(text.split("=", 1) for text in args.teacher)
    for flag, given, known in (
        ("tasks", args.tasks, ROWS),
        ("settings", args.settings, SETTINGS),
        ("teacher", args.teachers, ROWS),
    ):
        unknown = sorted(set(given) - set(known))
        if unknown:
            raise UserError(
                f"--{flag}: unknown `{unknown[0]}`; known: {', '.join(known)}"
            )
    # The others are compared with it, and may learn from it.
    args.settings = [PLAIN, *(s for s in args.settings if s != PLAIN)]
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line."""
    args = _parse(argv)
    from albert_tf2.checkpoints.fingerprint import fingerprint

    args.start = fingerprint(args.init_checkpoint)[1][:16]
    path = Path(args.workdir) / RUNS_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    # Setting by setting, so that a sitting that ends early has whole rows.
    wanted = [
        (name, setting, seed)
        for setting in args.settings
        for name in args.tasks
        for seed in args.seeds
    ]
    for number, (name, setting, seed) in enumerate(wanted, 1):
        key = key_of(name, setting, seed, args)
        if line_of(read_lines(path), key):
            continue
        if args.minutes and time.monotonic() - began > 60 * args.minutes:
            print("time is up: the same command goes on")
            break
        line = key | one_run(name, setting, seed, args)
        with path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line, ensure_ascii=False) + "\n")
        print(
            f"{number} of {len(wanted)}: {name}, {setting}, seed {seed}: "
            f"{line['metric']} {100 * line['figure']:.2f}, "
            f"{line['seconds']:.0f} s",
            flush=True,
        )
    found = table(read_lines(path), args)
    print("\n" + found)
    (Path(args.workdir) / TABLE_FILE).write_text(found + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    command_line.run(main)
