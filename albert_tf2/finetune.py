"""Fine-tune ALBERT on a Chinese task, evaluate it, write its predictions.

Tasks: lcqmc bq atec pawsx afqmc tnews iflytek cmnli ocnli xnli wsc csl
chnsenticorp (classification), cmrc2018 drcd (answers in a text), cluener msra
weibo resume peoples_daily (names), c3 chid (multiple choice). Your own files:
classification, multi_label, regression (tables of texts or pairs: CSV, TSV,
JSON Lines, Parquet), ner, qa and sentence_vectors.

The workdir receives model/ (for `python -m albert_tf2.predict`), predictions/
with a row per row of dev and test, results.json, metrics.jsonl and curves for
TensorBoard. The same command again resumes what was interrupted. With --sweep
these are the best run's, of several that differ in a few settings.
Exit codes: 0 done; 2 wrong input; 75 stopped by SIGTERM after saving, so a
scheduler may start the same command again.

    python -m albert_tf2.finetune --task lcqmc --data_dir lcqmc/ \\
      --init_checkpoint albert_tiny_zh --workdir runs/lcqmc
"""

import argparse
import dataclasses
import functools
import hashlib
import shlex
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any

from albert_tf2 import command_line, paths
from albert_tf2.errors import UserError
from albert_tf2.finetuning import chosen, sweep
from albert_tf2.recipes import (
    FinetuneRecipe,
    load_recipe,
    require_optimizer,
)
from albert_tf2.settings import ON_ERROR
from albert_tf2.training.identity import SEVERAL_SEEDS

RESULTS_FILE = "results.json"


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = command_line.parser(__doc__, "python -m albert_tf2.finetune")
    parser.add_argument(
        "--task", required=True, metavar="NAME", help="one of those above"
    )
    parser.add_argument(
        "--data_dir",
        required=True,
        metavar="FOLDER",
        help="the task's files: train, dev and test",
    )
    parser.add_argument(
        "--init_checkpoint",
        required=True,
        metavar="SOURCE",
        help="what to start from: a folder with a checkpoint, an archive, a "
        "released model's name, the starter that comes along (starter), a hub "
        "encoder (folder or https://), or config:albert_tiny_zh for random "
        "weights",
    )
    parser.add_argument(
        "--workdir",
        required=True,
        metavar="FOLDER",
        help="the run's folder: made by the first start, gone on with by the "
        "next",
    )
    command_line.add_recipe(
        parser,
        FinetuneRecipe,
        config="a recipe (default: the task's own, configs/finetune_*.yaml)",
    )
    parser.add_argument(
        "--vocab_file",
        metavar="FILE",
        help="the vocabulary, where none lies beside the checkpoint",
    )
    for split in ("train", "dev", "test"):
        parser.add_argument(
            f"--{split}_file",
            metavar="FILE",
            help=f"the {split} rows, instead of the file in --data_dir",
        )
    parser.add_argument(
        "--on_error",
        choices=ON_ERROR,
        default="fail",
        help="what to do about a bad row: stop, or count it and go on "
        "(default: fail)",
    )
    parser.add_argument(
        "--sweep",
        action="append",
        default=[],
        metavar="KEY=A,B,C",
        help="train with each of these values of a key of the recipe and take "
        "the best on the dev rows; several --sweep try all combinations",
    )
    command_line.add_strategy(parser)
    return parser.parse_args(argv)


def read_recipe(
    task: str, path: str | None, overrides: Sequence[str]
) -> FinetuneRecipe:
    """Reads a recipe; without a path, the shipped one of the task."""
    if path is None:
        from albert_tf2.tasks import registry

        task = registry.recipe_name(task)
        shipped = resources.files("albert_tf2.configs")
        with resources.as_file(shipped / f"finetune_{task}.yaml") as found:
            return load_recipe(
                FinetuneRecipe, found if found.is_file() else None, overrides
            )
    return load_recipe(FinetuneRecipe, path, overrides)


@dataclasses.dataclass
class Data:
    """The rows of a task; `test` and `dev` may be missing.

    `sources` has the names and the SHA-256 of each split's files, by which a
    run knows its data; rows that come from no file are known by what they are.
    """

    train: list[Any]
    dev: list[Any]
    test: list[Any]
    sources: dict[str, tuple[str, str]] = dataclasses.field(
        default_factory=dict
    )

    def __post_init__(self):
        for split in ("train", "dev", "test"):
            rows = getattr(self, split)
            if rows and split not in self.sources:
                digest = hashlib.sha256(repr(rows).encode()).hexdigest()
                self.sources[split] = (f"{len(rows)} rows", digest)


def read_data(
    task: Any,
    data_dir: paths.PathLike,
    recipe: FinetuneRecipe,
    *,
    on_error: str = "fail",
    say=print,
) -> Data:
    """Reads the splits that are there; a training file must be."""
    from albert_tf2.tasks.reading import DEV, SPLITS, TEST, TRAIN, ReadingReport

    if not paths.is_dir(data_dir):
        raise UserError(f"--data_dir {data_dir} is not a folder")
    task.prepare(data_dir, on_error=on_error)
    found: dict[str, list[Any]] = {}
    sources: dict[str, tuple[str, str]] = {}
    for split in SPLITS:
        found[split] = []
        if split != TRAIN and not task.find(data_dir, split):
            say(f"{split}: no file")
            continue
        report = ReadingReport()
        rows = task.read(data_dir, split, on_error=on_error, report=report)
        # Now, for what is no task file is refused sooner than it is hashed.
        sources[split] = _fingerprint(task.sources(data_dir, split))
        most = recipe.max_train_rows if split == TRAIN else recipe.max_eval_rows
        # Test rows are answered by position: all of them, always.
        if split != TEST:
            rows = sample(rows, most, recipe.seed)
        files = ", ".join(map(paths.name, task.find(data_dir, split)))
        say(f"{split}: {len(rows)} rows of {files}")
        for line in report.lines():
            say(f"  {line}")
        found[split] = rows
    for line in task.overview(found[TRAIN], found[DEV], found[TEST]):
        say(line)
    return Data(found[TRAIN], found[DEV], found[TEST], sources)


def _fingerprint(files_of_split: Sequence[str]) -> tuple[str, str]:
    """Returns the names of some files, and one SHA-256 of their contents."""
    digest = hashlib.sha256()
    for path in files_of_split:
        digest.update(paths.sha256(path).encode())
    names = ", ".join(paths.name(path) for path in files_of_split)
    return names, digest.hexdigest()


def sample(rows: list[Any], most: int | None, seed: int) -> list[Any]:
    """Draws some rows, in their order; all of them without a limit."""
    import numpy as np

    if most is None or most >= len(rows):
        return rows
    chosen = np.random.default_rng(seed).choice(len(rows), most, replace=False)
    return [rows[i] for i in sorted(chosen)]


def fine_tune(
    task: Any,
    data: Data,
    *,
    init_checkpoint: str,
    recipe: FinetuneRecipe,
    workdir: paths.PathLike,
    strategy: Any = None,
    vocab_file: str | None = None,
    say=print,
) -> dict[str, Any]:
    """Fine-tunes with one seed; writes model, predictions and results.

    Args:
        task: From `tasks.registry.create`, prepared (see `read_data`).
        data: Its rows.
        init_checkpoint: See the command line.
        recipe: How.
        workdir: Where to. An interrupted run in it is resumed, a finished
            one is reported as it stands.
        strategy: A `tf.distribute` strategy; None takes one device.
        vocab_file: Where none lies beside the checkpoint.
        say: Takes lines for the console.

    Returns:
        The contents of `results.json`: seed, steps, seconds, and the figures
        on dev and test.

    Raises:
        Preempted: After SIGTERM, and saving: the same call goes on.
    """
    from albert_tf2.finetuning import identity
    from albert_tf2.training import run_folder
    from albert_tf2.training.distribution import create_strategy
    from albert_tf2.training.workers import Workers

    strategy = strategy or create_strategy("one_device")
    workers = Workers(strategy)
    # Workers of a cluster do the same; the first one's files are the run's.
    if workers.index:
        workdir = paths.join(workdir, f"worker-{workers.index}")
    what = identity.identity_of(
        task,
        data.sources,
        recipe,
        init_checkpoint,
        vocab_file=vocab_file,
        strategy=strategy,
    )
    with (
        workers.watched(),
        run_folder.owned(workdir, worker=workers.index) as owner,
    ):
        done = identity.results_of(workdir, what)
        if done:
            say(f"{workdir} is finished already: here are its results")
            return done
        results = _train(
            task,
            data,
            what,
            init_checkpoint=init_checkpoint,
            vocab_file=vocab_file,
            workdir=workdir,
            strategy=strategy,
            owner=owner,
            say=say,
        )
        paths.write_json(paths.join(workdir, RESULTS_FILE), results)
    return results


def _train(
    task: Any,
    data: Data,
    what: Any,
    *,
    init_checkpoint: str,
    vocab_file: str | None,
    workdir: paths.PathLike,
    strategy: Any,
    owner: paths.Lock | None,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Trains, predicts and scores; returns what results.json will hold."""
    from albert_tf2.finetuning import encoders, report
    from albert_tf2.finetuning.tuner import Tuner
    from albert_tf2.keras_api import keras
    from albert_tf2.training import run_folder
    from albert_tf2.training.loop import sigterm_noted
    from albert_tf2.training.precision import model_precision

    recipe = what.recipe
    dropout = {
        name: getattr(recipe, name)
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob")
        if getattr(recipe, name) is not None
    }
    keras.utils.set_random_seed(recipe.seed)  # of random weights, `config:`
    results = {"task": task.name, "seed": recipe.seed}
    with model_precision(recipe.precision):
        with sigterm_noted() as terminated:
            tuner = Tuner(
                task,
                load_encoder=lambda: encoders.load_encoder(
                    init_checkpoint,
                    vocab_file=vocab_file,
                    dropout=dropout,
                    say=say,
                ),
                recipe=recipe,
                workdir=workdir,
                strategy=strategy,
                say=say,
            )
            tuner.open_teacher(data.train)
            what = dataclasses.replace(
                what,
                model=tuner.loaded.config,
                vocabulary=tuner.tokenizer.vocabulary,
            )
            changes = run_folder.check(workdir, what)
            run_folder.describe(workdir, what, changes, say=say)
            results |= tuner.train(
                data.train, data.dev, terminated=terminated, owner=owner
            )
        for split in ("dev", "test"):
            rows = getattr(data, split)
            if rows:
                predictions = tuner.predict(rows)
                report.write_predictions(workdir, split, predictions)
                results[split] = task.score(rows, predictions)
                report.write(workdir, split, task, rows, predictions, say=say)
    return results | {"train_rows": len(data.train)}


def fine_tune_seeds(
    task: Any, data: Data, *, recipe: FinetuneRecipe, workdir, **settings
) -> dict[str, Any]:
    """Fine-tunes with several seeds; the best on dev becomes `model/`.

    Returns:
        For each split and figure the mean, the spread (sample standard
        deviation) and the value of each seed.
    """
    from albert_tf2.finetuning import identity
    from albert_tf2.training import run_folder
    from albert_tf2.training.distribution import create_strategy
    from albert_tf2.training.workers import Workers

    say = settings.get("say", print)
    strategy = settings.get("strategy") or create_strategy("one_device")
    worker = Workers(strategy).index
    what = identity.identity_of(
        task,
        data.sources,
        recipe,
        settings["init_checkpoint"],
        vocab_file=settings.get("vocab_file"),
        strategy=strategy,
        kind=SEVERAL_SEEDS,
    )
    runs = []
    with run_folder.owned(workdir, worker=worker):
        changes = run_folder.check(
            workdir, what, finished=run_folder.has_state(workdir)
        )
        if not worker:
            run_folder.describe(workdir, what, changes, say=say)
        for seed in range(recipe.seed, recipe.seed + recipe.num_seeds):
            say(f"seed {seed}")
            runs.append(
                fine_tune(
                    task,
                    data,
                    recipe=dataclasses.replace(recipe, seed=seed, num_seeds=1),
                    workdir=paths.join(workdir, f"seed-{seed}"),
                    **settings | {"strategy": strategy},
                )
            )
        return _best_of_seeds(task, runs, workdir, write=not worker, say=say)


def _best_of_seeds(
    task: Any,
    runs: list[dict[str, Any]],
    workdir: paths.PathLike,
    *,
    write: bool,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Returns the figures of several seeds; copies the best one's model."""
    results: dict[str, Any] = {"task": task.name, "runs": runs}
    for split in ("dev", "test"):
        results[split] = chosen.of_seeds([run.get(split) for run in runs])
    if not write:
        return results
    best = chosen.best(runs, task.metric)
    if not best.get("dev"):
        say("no dev rows tell which seed is best: the first one is taken")
    chosen.take(paths.join(workdir, f"seed-{best['seed']}"), workdir)
    results["best_seed"] = best["seed"]
    paths.write_json(paths.join(workdir, RESULTS_FILE), results)
    return results


def summary(results: dict[str, Any]) -> str:
    """Returns the figures of a run, or of several seeds, as a few lines."""
    lines = []
    for split in ("dev", "test"):
        for name, value in results.get(split, {}).items():
            if isinstance(value, dict):
                shown = f"{value['mean']:.4f} ± {value['spread']:.4f}"
            else:
                shown = f"{value:.4f}" if isinstance(value, float) else value
            lines.append(f"{split} {name}: {shown}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line."""
    args = _parse(argv)
    from albert_tf2.tasks import registry

    recipe = read_recipe(args.task, args.config, args.set)
    points = sweep.points(recipe, args.sweep)
    for point in points:
        require_optimizer(point.recipe)
    task = registry.from_recipe(args.task, recipe)
    for split in ("train", "dev", "test"):
        path = getattr(args, f"{split}_file")
        if path:
            task.use_file(split, path)
    # All files are read before TensorFlow loads: a bad row shows at once.
    data = read_data(task, args.data_dir, recipe, on_error=args.on_error)
    if args.sweep and not data.dev:
        raise UserError(
            "--sweep chooses by the dev rows, and there are none: name them "
            "with --dev_file"
        )
    from albert_tf2.training.distribution import create_strategy

    run: Callable[..., dict[str, Any]] = (
        fine_tune if recipe.num_seeds == 1 else fine_tune_seeds
    )
    if args.sweep:
        run = functools.partial(sweep.run, points=points, tune=run)
    results = run(
        task,
        data,
        init_checkpoint=args.init_checkpoint,
        recipe=recipe,
        workdir=args.workdir,
        strategy=create_strategy(args.strategy, tpu=args.tpu),
        vocab_file=args.vocab_file,
    )
    print(summary(results))
    model = paths.join(args.workdir, "model")
    print(f"model: {model}")
    print(f"next: python -m albert_tf2.serve --model {shlex.quote(model)}")
    return 0


if __name__ == "__main__":
    command_line.run(main)
