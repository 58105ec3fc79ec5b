"""A budget of time in place of a number of steps (2104.07705, section 3).

    some steps, measured and thrown away -> seconds per step
      -> `train_steps`, and a warm-up that keeps its share -> an ordinary run

The schedule then ends with the time. What was found is written to recipe.json
like any other recipe, so a run that is resumed is measured no second time: it
is the run of that recipe, bit for bit.
"""

import dataclasses
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from albert_tf2 import paths, settings
from albert_tf2.errors import UserError
from albert_tf2.recipes import PretrainRecipe
from albert_tf2.training import run_folder
from albert_tf2.training.identity import PRETRAINING
from albert_tf2.training.run_log import hear_xla_out
from albert_tf2.training.workers import Workers

if TYPE_CHECKING:
    from albert_tf2.pretraining.run import Run

# How long the steps of each depth are measured, unless that is more than this
# share of the budget.
MEASURED_SECONDS, MEASURED_SHARE = 10.0, 0.05
Clock = Callable[[], float]


@dataclasses.dataclass(frozen=True)
class Costs:
    """What a run spends its time on.

    Attributes:
        step: Seconds of a step, on average over all depths.
        evaluation: Seconds of one evaluation.
        compiling: Seconds, once.
        tokens: Of a step.
    """

    step: float
    evaluation: float
    compiling: float
    tokens: float

    def steps_within(self, seconds: float, eval_every: float) -> int:
        """Returns the steps that some seconds pay for, none below 1."""
        # One evaluation before the first step, one after the last.
        left = seconds - self.compiling - 2 * self.evaluation
        return int(left / (self.step + self.evaluation / eval_every))


def resolved(
    recipe: PretrainRecipe,
    workdir: paths.PathLike,
    new_run: Callable[[PretrainRecipe], "Run"],
    workers: Workers,
    *,
    say: Callable[[str], None] = print,
    clock: Clock = time.perf_counter,
) -> PretrainRecipe:
    """Returns a recipe whose steps take what is left of its budget.

    Args:
        recipe: What is asked for. Without a budget it is returned as it is.
        workdir: The run's folder. One that holds a checkpoint has the steps
            that were found when it began.
        new_run: Builds a run to measure; its weights are thrown away.
        workers: Those who train together.
        say: Takes lines for the console.
        clock: Seconds.

    Raises:
        UserError: For a budget that cannot be kept, or another one than a
            run began with.
    """
    if recipe.budget is None:
        return recipe
    began = clock()
    if workers.count > 1:
        raise UserError(
            f"--budget {recipe.budget} measures the steps of one process, and "
            f"here are {workers.count}, which must all make the same ones: "
            "leave --budget away and pass --set train_steps"
        )
    if run_folder.has_state(workdir):
        return _as_it_began(recipe, workdir, say)
    seconds = settings.seconds(recipe.budget)
    say(f"budget {recipe.budget}: measuring the first steps")
    run = new_run(_endless(recipe))
    costs = measure(run, clock, min(MEASURED_SECONDS, MEASURED_SHARE * seconds))
    left = seconds - (clock() - began)
    steps = costs.steps_within(left, recipe.eval_every)
    if steps < 1:
        raise UserError(
            f"--budget {recipe.budget} leaves no time to train: measuring took "
            f"{seconds - left:.0f} s, compiling again takes "
            f"{costs.compiling:.0f} s, two evaluations "
            f"{2 * costs.evaluation:.0f} s, a step {costs.step:.2f} s; give "
            "more time"
        )
    steps = min(steps, settings.MAX_STEPS)
    end = datetime.now() + timedelta(seconds=left)
    found = with_steps(recipe, steps)
    say(
        f"budget {recipe.budget}: {costs.step:.3g} s per step measured, so "
        f"{steps:,} steps ({steps * costs.tokens / 1e6:,.3g} M tokens, "
        f"{steps * recipe.global_batch_size / run.records.records:,.2g} "
        f"epochs), warm-up over {found.warmup_steps:,}; expected end "
        f"{end:%Y-%m-%d %H:%M}"
    )
    return found


def with_steps(recipe: PretrainRecipe, steps: int) -> PretrainRecipe:
    """Returns a recipe of so many steps; its warm-up keeps its share."""
    warmup = round(recipe.warmup_steps * steps / recipe.train_steps)
    return dataclasses.replace(recipe, train_steps=steps, warmup_steps=warmup)


def _endless(recipe: PretrainRecipe) -> PretrainRecipe:
    """Returns the recipe with stages that no measurement runs over."""
    return dataclasses.replace(recipe, train_steps=settings.MAX_STEPS)


def measure(run: "Run", clock: Clock, seconds: float) -> Costs:
    """Makes steps of each depth for some seconds, after compiling them."""
    hear_xla_out()
    batches = run.batches(0)
    last = run.stages[-1]
    step = compiling = 0.0
    for stage in run.stages:
        began = clock()
        rows = run.run_steps(batches, stage.first, 1)
        compiled = clock()
        steps, count, spent = 0, 1, 0.0
        while spent < seconds:
            run.run_steps(batches, stage.first, count)
            steps += count
            spent = clock() - compiled
            # One call for each step costs more than a run pays.
            count = min(2 * count, run.recipe.steps_per_loop)
        cost = spent / steps
        compiling += max(compiled - began - cost, 0.0)
        step += cost * (stage.end - stage.first) / last.end
    # `cost` is of all layers now. A step is three forward passes.
    held_out = run.held_out.records if run.held_out else 0
    evaluation = cost / 3 * held_out / run.recipe.global_batch_size
    tokens = float(rows[0, run.metrics.index("tokens")])
    return Costs(step, evaluation, compiling, tokens)


def _as_it_began(
    recipe: PretrainRecipe,
    workdir: paths.PathLike,
    say: Callable[[str], None],
) -> PretrainRecipe:
    """Returns the recipe with the steps that a run in a folder began with."""
    before = run_folder.read(workdir)
    if before is None or before["kind"] != PRETRAINING:
        return recipe  # refused when the run is compared with the folder
    old = run_folder.read_recipe(workdir, PRETRAINING)
    if old.budget != recipe.budget:
        began = f"--budget {old.budget}" if old.budget else "no --budget"
        raise UserError(
            f"{workdir} holds a run that began with {began} and "
            f"{old.train_steps:,} steps, not with --budget {recipe.budget}: "
            "leave its steps as they are, or choose another --workdir"
        )
    say(
        f"budget {recipe.budget}: {old.train_steps:,} steps, as found when "
        "the run began"
    )
    return dataclasses.replace(
        recipe, train_steps=old.train_steps, warmup_steps=old.warmup_steps
    )
