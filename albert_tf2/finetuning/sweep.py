"""Runs that differ in a few settings, and the best of them (`--sweep`).

    --sweep learning_rate=2e-5,6e-5,1e-4 --sweep num_train_epochs=3,5

is six runs. The workdir receives

    learning_rate=2e-5,num_train_epochs=3/ ...   each run, as any other is
    sweep.json                                   their figures, and the best
    model/ predictions/ report/ results.json     of the best, as a run has them

The best is chosen by the dev rows. The test rows are answered by that one
alone, after it was chosen: a figure of the best of six on the same test rows
would be too good. The same command again goes on; with other values, those
that are finished are not trained again.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from albert_tf2 import paths, settings
from albert_tf2.errors import UserError, cut, unknown_key
from albert_tf2.finetuning import chosen
from albert_tf2.recipe_file import NULLS
from albert_tf2.recipes import FinetuneRecipe

SWEEP_FILE = "sweep.json"
# Nobody trains more; three keys with 400 values each would fill the memory.
MOST_RUNS = 1_000
# All runs of a sweep have the same task and rows.
_OF_TASK = (
    *("columns", "labels", "delimiter", "label_separator"),
    *("max_train_rows", "max_eval_rows", "pooling", "vector_loss"),
)
_OF_SEEDS = ("seed", "num_seeds")
# As many values as tell on which side of them the best one may lie.
_A_RANGE = 3


@dataclasses.dataclass(frozen=True)
class Point:
    """One run of a sweep.

    Attributes:
        values: What it sets.
        recipe: The whole recipe.
    """

    values: dict[str, Any]
    recipe: FinetuneRecipe

    @property
    def name(self) -> str:
        """The run's folder: the same for the same values."""
        return ",".join(
            f"{key}={_spelled(value)}" for key, value in self.values.items()
        )


def _spelled(value: Any) -> str:
    text = settings.spelled(value)
    if isinstance(value, float) and float(text) != value:
        text = repr(value)
    plain = re.sub(r"[^\w.+-]", "_", text)
    if plain != text:  # a path: two may differ in their signs alone
        plain += f"-{hashlib.sha256(text.encode()).hexdigest()[:6]}"
    return plain


def points(recipe: FinetuneRecipe, sweeps: Sequence[str]) -> list[Point]:
    """Returns the runs of a sweep; one, as the recipe has it, without any.

    Args:
        recipe: What all of them have in common.
        sweeps: `key=a,b,c` each; all combinations are tried, the last key's
            values first.

    Raises:
        UserError: For an unknown key, a wrong value, or one that is there
            twice.
    """
    tried: dict[str, list[Any]] = {}
    for sweep in sweeps:
        key, equals, texts = sweep.partition("=")
        if not equals:
            raise UserError(
                f"--sweep must be key=a,b,c. Received: `--sweep {cut(sweep)}`"
            )
        if key in tried:
            raise UserError(f"--sweep: `{key}` is there twice: keep one")
        tried[key] = _values(key, texts)
    count = math.prod(map(len, tried.values()))
    if count > MOST_RUNS:
        raise UserError(
            f"--sweep: {count:,} runs are more than {MOST_RUNS:,}: try fewer "
            "values of each key, or one key after the other"
        )
    found = []
    for values in itertools.product(*tried.values()):
        chosen_values = dict(zip(tried, values, strict=True))
        try:
            changed = dataclasses.replace(recipe, **chosen_values)
        except settings.SettingError as error:
            raise UserError(f"--sweep: {error.problem}") from None
        found.append(Point(chosen_values, changed))
    return found


def _values(key: str, texts: str) -> list[Any]:
    fields = settings.of(FinetuneRecipe)
    if key not in fields:
        raise unknown_key("--sweep", key, list(fields))
    if key in _OF_TASK:
        raise UserError(
            f"--sweep: `{key}` decides what the task or its rows are, and all "
            "runs of a sweep have the same: use --set, and a workdir for each "
            "value"
        )
    if key in _OF_SEEDS:
        raise UserError(
            f"--sweep: `{key}` cannot be chosen by its figure, which is "
            "chance: --set num_seeds=3 gives each run several"
        )
    values = []
    for text in texts.split(","):
        written = None if text.strip() in NULLS else text.strip()
        try:
            value = fields[key].read(written)
        except ValueError as error:
            raise UserError(f"--sweep: {error}") from None
        if value in values:
            raise UserError(
                f"--sweep: `{key}` has {settings.spelled(value)} twice: keep "
                "one"
            )
        values.append(value)
    return values


def run(
    task: Any,
    data: Any,
    *,
    points: Sequence[Point],
    tune: Callable[..., dict[str, Any]],
    recipe: FinetuneRecipe,
    workdir: paths.PathLike,
    strategy: Any,
    say: Callable[[str], None] = print,
    **more: Any,
) -> dict[str, Any]:
    """Runs all points, and makes the best one the workdir's own.

    Args:
        task: What to learn.
        data: A `finetune.Data`, with dev rows.
        points: The runs.
        tune: `finetune.fine_tune`, or `fine_tune_seeds`.
        recipe: What all of them have in common.
        workdir: Where everything goes.
        strategy: The devices, of one machine.
        say: Takes lines for the console.
        **more: For `tune`.

    Returns:
        The results of the best run, with figures on the test rows, and its
        `sweep` values.
    """
    from albert_tf2.finetuning import identity
    from albert_tf2.training import run_folder
    from albert_tf2.training.identity import SWEEP
    from albert_tf2.training.workers import Workers

    if Workers(strategy).count > 1:
        raise UserError(
            "--sweep runs on one machine: start its runs one by one under "
            "several workers"
        )
    what = identity.identity_of(
        task,
        data.sources,
        recipe,
        more["init_checkpoint"],
        vocab_file=more.get("vocab_file"),
        strategy=strategy,
        kind=SWEEP,
    )
    untested = dataclasses.replace(
        data,
        test=[],
        sources={k: v for k, v in data.sources.items() if k != "test"},
    )
    with run_folder.owned(workdir):
        changes = run_folder.check(
            workdir, what, finished=run_folder.has_state(workdir)
        )
        run_folder.describe(workdir, what, changes, say=say)
        results = []
        for number, point in enumerate(points, 1):
            say(f"run {number} of {len(points)}: {point.name}")
            results.append(
                tune(
                    task,
                    untested,
                    recipe=point.recipe,
                    workdir=paths.join(workdir, point.name),
                    strategy=strategy,
                    say=say,
                    **more,
                )
            )
        best = results.index(chosen.best(results, task.metric))
        folder = paths.join(workdir, points[best].name)
        chosen.take(folder, workdir)
        found = results[best] | {"sweep": points[best].values}
        if data.test:
            found["test"] = _tested(
                task,
                data.test,
                found,
                folder=folder,
                workdir=workdir,
                recipe=points[best].recipe,
                strategy=strategy,
                say=say,
            )
        _write(workdir, task.metric, points, results, best)
        say(table(task.metric, points, results, best))
        paths.write_json(paths.join(workdir, run_folder.RESULTS_FILE), found)
    return found


def _write(workdir, metric, points, results, best) -> None:
    paths.write_json(
        paths.join(workdir, SWEEP_FILE),
        {
            "metric": metric,
            "best": points[best].name,
            "runs": [
                {
                    "folder": point.name,
                    "values": point.values,
                    "dev": found["dev"],
                    "seconds": seconds_of(found),
                }
                for point, found in zip(points, results, strict=True)
            ],
        },
    )


def seconds_of(results: dict[str, Any]) -> float:
    """Returns how long a run trained, over all of its seeds."""
    return sum(run["seconds"] for run in results.get("runs", [results]))


def table(
    metric: str,
    points: Sequence[Point],
    results: Sequence[dict[str, Any]],
    best: int,
) -> str:
    """Returns the runs of a sweep as a few lines, and what they suggest."""
    width = max(len(point.name) for point in points)
    lines = [f"{'':{width}}  dev {metric:<16} seconds"]
    for number, (point, found) in enumerate(zip(points, results, strict=True)):
        value = found["dev"][metric]
        shown = (
            f"{value['mean']:.4f} ± {value['spread']:.4f}"
            if isinstance(value, dict)
            else f"{value:.4f}"
        )
        mark = "  taken" if number == best else ""
        lines.append(
            f"{point.name:{width}}  {shown:<20} {seconds_of(found):7.0f}{mark}"
        )
    for key, value in points[best].values.items():
        tried = sorted({point.values[key] for point in points}, key=_as_number)
        if len(tried) < _A_RANGE or not isinstance(value, int | float):
            continue
        for end, word in ((tried[0], "smallest"), (tried[-1], "largest")):
            if value == end:
                lines.append(
                    f"note: the best `{key}` is the {word} that was tried"
                )
    return "\n".join(lines)


def _as_number(value: Any) -> float:
    with contextlib.suppress(TypeError, ValueError):
        return float(value)
    return -math.inf


def _tested(
    task: Any,
    rows: Sequence[Any],
    found: dict[str, Any],
    *,
    folder: paths.PathLike,
    workdir: paths.PathLike,
    recipe: FinetuneRecipe,
    strategy: Any,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Answers the test rows; returns the figures, of all seeds if several."""
    from albert_tf2.finetuning import report

    answers = _answers(task, rows, workdir, recipe, strategy)
    report.write_predictions(workdir, "test", answers)
    report.write(workdir, "test", task, rows, answers, say=say)
    if "runs" not in found:
        return task.score(rows, answers)
    places = [f"seed-{run['seed']}" for run in found["runs"]]
    return chosen.of_seeds(
        [
            task.score(
                rows,
                _answers(
                    task, rows, paths.join(folder, place), recipe, strategy
                ),
            )
            for place in places
        ]
    )


def _answers(
    task: Any,
    rows: Sequence[Any],
    workdir: paths.PathLike,
    recipe: FinetuneRecipe,
    strategy: Any,
) -> list[dict[str, Any]]:
    """Returns the predictions of a run's model, as the run would make them."""
    from albert_tf2.finetuning import encoders, feeding
    from albert_tf2.training.precision import model_precision

    with model_precision(recipe.precision):
        with strategy.scope():
            _, model, loaded, lengths = encoders.load(
                paths.join(workdir, "model")
            )
        examples = task.encode(rows, loaded.tokenizer, lengths)
        logits = feeding.predict_logits(
            feeding.make_predict_step(model, strategy),
            examples,
            task=task,
            batch_size=recipe.eval_batch_size,
            replicas=strategy.num_replicas_in_sync,
            positions=loaded.positions,
        )
    return task.decode(rows, examples, logits, lengths)
