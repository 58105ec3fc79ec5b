"""What a change of the pre-training recipe is worth, at equal CPU time.

Each variant of `VARIANTS` trains a new model until its CPU budget is
spent. The first call in a --workdir measures the baseline, which fixes its
steps. A variant gets as many as cost the same. Its steps are measured in turns
with the baseline's, so that other work on the machine slows both, and thrown
away. Warm-up and decay are tied to the steps: each variant ends its own whole
schedule. Compiling and evaluating are not paid for; the seconds that
`word_vectors=counted` takes come on top, in the table too.

All variants are evaluated alike: on the same held-out records, masked by
--config's settings, in the depth that they ended with. Each result is a folder
of --workdir; a second call makes those that are missing, and prints the table.
A variant is a name and settings of the recipe, and of these:

    layers=1           the model with so many layers; see `MODEL` for others
    warmup=0.05        share of the steps
    records=FOLDER     instead of --data_dir: another vocabulary, for example
    short=FOLDER:0.5   half of the steps on these, shorter records first

    TF_NUM_INTRAOP_THREADS=1 taskset -c 1 python benchmarks/recipe_search.py \\
        --data_dir records --workdir runs/search --minutes 10
"""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from albert_tf2 import command_line, paths, settings
from albert_tf2.errors import UserError
from albert_tf2.recipes import PretrainRecipe, load_recipe

BASELINE = "baseline"
LAMB = "optimizer=lamb learning_rate=5e-3 beta_2=0.999"
# Changes of the recipe: AdamW; one layer, then two, then four; counted words;
# heads that know where to look.
VARIANTS = {
    BASELINE: "",
    "lamb": LAMB,
    "lamb, four layers": f"{LAMB} grow_depth=",
    "four layers": "grow_depth=",
    "one layer longer": "grow_depth=1:0.5,2:0.25",
    "mask 45 %": "masked_lm_prob=0.45 max_predictions_per_seq=58",
    "mask 15 %": "masked_lm_prob=0.15 max_predictions_per_seq=20",
    "single words": "max_ngram=1",
    "rate 3e-3": "learning_rate=3e-3",
    "batch 64": "global_batch_size=64",
    "batch 16": "global_batch_size=16",
    "random words": "word_vectors=random",
    "random heads": "attention_heads=random",
    "embedding 64": "embedding_size=64",
    "embedding 256": "embedding_size=256",
    "initializer 0.05": "initializer_range=0.05",
    # The google layout has no pre-LN variant.
    "brightmart": "layout=brightmart",
    "pre-LN": "layout=brightmart ln_type=preln",
}
# Settings of a variant that are the model's, or the search's own.
MODEL = {
    "layers": ("num_hidden_layers", int),
    "embedding_size": ("embedding_size", int),
    "vocab_size": ("vocab_size", int),
    "initializer_range": ("initializer_range", float),
    "layout": ("layout", str),
    "ln_type": ("ln_type", str),
}
OWN = ("warmup", "records", "short")
ROUNDS, MEASURED_SECONDS = 3, 3.0  # of each depth's first steps
BASELINE_STEPS, RESULT = "baseline_steps.json", "result.json"


def main(argv: Sequence[str] | None = None) -> int:
    """Makes the runs that are missing, and prints the table."""
    parser = command_line.parser(__doc__)
    parser.add_argument("--config", default="configs/pretrain_tiny_budget.yaml")
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--minutes", type=float, default=10.0, help="of CPU")
    parser.add_argument(
        "--eval_records", type=int, default=1024, help="the first so many"
    )
    parser.add_argument(
        "--variants",
        nargs="*",
        default=list(VARIANTS),
        metavar="NAME[: KEY=VALUE ...]",
        help="of the table in this file, or new ones",
    )
    parser.add_argument("--seed", type=int, help="the recipe's, if not given")
    parser.add_argument("--only", help="one, in this process")
    arguments = parser.parse_args(argv)
    if arguments.only:
        one(arguments.only, arguments)
        return 0
    for variant in arguments.variants:
        if not paths.exists(folder_of(variant, arguments) / RESULT):
            in_own_process(variant, arguments)
        print(table(Path(arguments.workdir)), flush=True)
    return 0


def folder_of(variant: str, arguments) -> Path:
    """Returns where a variant's result lies."""
    name = variant.partition(":")[0].replace(" ", "_").replace("/", "_")
    seed = "" if arguments.seed is None else f"-seed{arguments.seed}"
    return Path(arguments.workdir) / (name + seed)


def in_own_process(variant: str, arguments) -> None:
    """Makes one run: memory and threads are its own."""
    flags = [
        f"--{name}={getattr(arguments, name)}"
        for name in ("config", "data_dir", "workdir", "minutes", "eval_records")
    ]
    if arguments.seed is not None:
        flags.append(f"--seed={arguments.seed}")
    subprocess.run(
        [sys.executable, __file__, f"--only={variant}", *flags],
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        check=True,
    )


def one(variant: str, arguments) -> None:
    """Trains one variant and writes its result."""
    name, _, written = variant.partition(":")
    changes = (written or VARIANTS[name]).split()
    folder = folder_of(variant, arguments)
    folder.mkdir(parents=True, exist_ok=True)
    recipe, own = recipe_of(changes, arguments, folder)
    data_dir = own.get("records", arguments.data_dir)
    short_dir, _, short_share = own.get("short", "none:0").rpartition(":")
    parts = [(float(short_share), short_dir), (1.0, data_dir)]
    parts = [part for part in parts if part[0]]
    steps = affordable(recipe, parts, bool(changes), arguments, folder)
    share = float(own.get("warmup", 0.05))
    recipe = dataclasses.replace(
        recipe, train_steps=steps, warmup_steps=max(1, round(steps * share))
    )
    sources = [
        (round(end * steps), new_run(recipe, records, folder))
        for end, records in parts
    ]
    run = sources[-1][1]
    curve, began = [], time.process_time()
    run.begin()
    spent = time.process_time() - began
    for step, cpu, metrics in train(run, sources):
        spent += cpu
        curve.append({"step": step, "cpu_seconds": spent} | metrics)
        # To be looked at while it runs.
        paths.write_json(folder / "curve.json", curve)
    figures = evaluate(run, arguments)
    paths.write_json(
        folder / RESULT,
        {
            "variant": name.strip(),
            "settings": changes,
            "seed": recipe.seed,
            "steps": steps,
            "tokens": sum(row["tokens"] for row in curve),
            "cpu_seconds": spent,
            "figures": figures,
            "curve": curve,
        },
    )


def recipe_of(
    changes: Sequence[str], arguments, folder: Path
) -> tuple[PretrainRecipe, dict[str, str]]:
    """Returns a variant's recipe, and its settings that are the search's."""
    pairs = [setting.partition("=")[::2] for setting in changes]
    own = {key: value for key, value in pairs if key in OWN}
    sizes = {
        MODEL[key][0]: MODEL[key][1](value)
        for key, value in pairs
        if key in MODEL
    }
    rest = [f"{k}={v}" for k, v in pairs if k not in MODEL and k not in OWN]
    if arguments.seed is not None:
        rest.append(f"seed={arguments.seed}")
    recipe = load_recipe(PretrainRecipe, arguments.config, rest)
    if sizes:
        config = recipe.model_config().replace(**sizes)
        file = folder / "albert_config.json"
        paths.write_json(file, config.to_dict())
        recipe = dataclasses.replace(recipe, model=str(file))
    return recipe, own


def new_run(recipe: PretrainRecipe, data_dir: str, folder: Path):
    """Returns the run of a recipe, before its first step."""
    from albert_tf2.pretraining.run import Run

    return Run(recipe, data_dir, folder, "one_device")


def train(run, sources) -> Iterator[tuple[int, float, dict[str, float]]]:
    """Yields the step, CPU seconds and metrics of each call of steps.

    Where a program is compiled, the step costs what those after it do.

    Args:
        run: What is trained.
        sources: Up to which step batches come from which run's records.
    """
    step, unpaid = 0, []
    for end, source in sources:
        batches = source.batches(step)
        while step < end:
            count = min(run.recipe.steps_per_loop, end - step)
            programs, began = run.programs, time.process_time()
            rows = run.run_steps(batches, step, count)  # [count, metrics]
            cpu = time.process_time() - began
            step += count
            unpaid.append(rows)
            if run.programs == programs:
                cpu *= sum(map(len, unpaid)) / count
                rows, unpaid = np.concatenate(unpaid), []
                means = rows.mean(0).tolist()
                means = dict(zip(run.metrics, means, strict=True))
                tokens = rows[:, run.metrics.index("tokens")]
                means["tokens"] = float(tokens.sum())
                yield step, cpu, means


def affordable(
    recipe: PretrainRecipe, parts, differs: bool, arguments, folder: Path
) -> int:
    """Returns the steps that cost as much as the baseline's.

    Args:
        recipe: Of the variant.
        parts: Up to which share of the steps which records are read.
        differs: Whether it is another recipe than the baseline.
        arguments: Of the command line.
        folder: Of the variant.
    """
    file = Path(arguments.workdir) / BASELINE_STEPS
    known = json.loads(file.read_text("utf-8")) if file.exists() else None
    plain = load_recipe(PretrainRecipe, arguments.config)
    asked = dataclasses.asdict(plain) | {
        "minutes": arguments.minutes,
        "data_dir": arguments.data_dir,
        "eval_records": arguments.eval_records,
    }
    for name, value in asked.items():
        if known and known.get(name) != value:
            raise UserError(
                f"{file} is of `{name}` {known.get(name)}, not of {value}: "
                "choose another --workdir"
            )
    if known and not differs:
        return known["steps"]
    baseline = measurable(plain, [(1.0, arguments.data_dir)], folder)
    variant = measurable(recipe, parts, folder) if differs else []
    costs = [(cost(baseline), cost(variant)) for _ in range(ROUNDS)]
    if not known:
        cheapest = min(of_baseline for of_baseline, _ in costs)
        steps = max(1, int(arguments.minutes * 60 / cheapest))
        known = asked | {"steps": steps}
        paths.write_json(file, known)
    if not differs:
        return known["steps"]
    ratio = statistics.median(base / own for base, own in costs)
    return max(1, round(known["steps"] * ratio))


def measurable(recipe: PretrainRecipe, parts, folder: Path) -> list:
    """Returns the runs of a recipe, each with its share of the steps."""
    endless = dataclasses.replace(recipe, train_steps=settings.MAX_STEPS)
    ends = [0.0, *(end for end, _ in parts)]
    return [
        (end - begin, new_run(endless, records, folder))
        for begin, (end, records) in zip(ends, parts, strict=False)
    ]


def cost(runs) -> float:
    """Returns the CPU seconds of a step, on average over runs and depths."""
    from albert_tf2.pretraining import budget

    return sum(
        share * budget.measure(run, time.process_time, MEASURED_SECONDS).step
        for share, run in runs
    )


def evaluate(run, arguments) -> dict[str, float]:
    """Returns figures on the first held-out records, masked by --config."""
    from albert_tf2.pretraining.evaluation import Evaluator
    from albert_tf2.pretraining.recipe_parts import create_masker

    plain = load_recipe(PretrainRecipe, arguments.config)
    most = min(arguments.eval_records, run.held_out.records)
    first = dataclasses.replace(run.held_out, counts=(most,))
    masker = create_masker(plain, run.records, run.config)
    return Evaluator(
        run.model, run.strategy, run.records, first, masker, batch_size=32
    ).evaluate()


def table(workdir: Path) -> str:
    """Returns all results of a folder as Markdown, the best first."""
    results = [
        json.loads(file.read_text("utf-8"))
        for file in sorted(workdir.glob(f"*/{RESULT}"))
    ]
    results.sort(key=lambda result: result["figures"]["mlm_loss"])
    base = [
        result["figures"]["mlm_loss"]
        for result in results
        if result["variant"] == BASELINE
    ]
    lines = [
        "| variant | seed | steps | tokens | CPU s | MLM loss | to baseline "
        "| accuracy | SOP |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        figures = result["figures"]
        loss = figures["mlm_loss"]
        difference = f"{loss - sum(base) / len(base):+.3f}" if base else ""
        lines.append(
            f"| {result['variant']} | {result['seed']} | {result['steps']:,} "
            f"| {result['tokens'] / 1e6:.2f} M | {result['cpu_seconds']:.0f} "
            f"| {loss:.3f} | {difference} | {figures['mlm_accuracy']:.1%} "
            f"| {figures['sop_accuracy']:.1%} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    command_line.run(main)
