"""Makes the model that comes along with the package, out of its runs.

Writes the last run's newest weights in half precision, as a Hugging Face folder
that transformers reads too, with the recipes, the curves and a card. What is
written is loaded again and evaluated on the runs' held-out records beside the
last run's own weights, so the card says what users get, not what was trained.

The runs themselves (nothing but texts that may be passed on):

    python -m albert_tf2.data.vocabulary --vocab_size 8192 \\
        --character_set gb2312 --output vocab.txt \\
        --input_file 'free/*.zst' 'data/sample/corpus/*.txt'
    python -m albert_tf2.data.build_pretraining_data --vocab_file vocab.txt \\
        --max_seq_length 128 --output_dir records \\
        --input_file 'free/*.zst' 'data/sample/corpus/*.txt'
    python -m albert_tf2.pretrain --config starter/recipe.yaml \\
        --data_dir records --workdir run
    python benchmarks/revive_units.py --run run --data_dir records \\
        --output revived
    python -m albert_tf2.pretrain --config starter/recipe_2.yaml \\
        --init_checkpoint revived --data_dir records --workdir run_2
    python benchmarks/make_starter.py --runs run run_2 --data_dir records

The starter of those two went on, when their folders were gone:

    python benchmarks/looking_heads.py --checkpoint starter \\
        --output looking --input_file 'free/*.zst' \\
        data/sample/corpus/news_and_encyclopedia.txt
    python -m albert_tf2.pretrain --config starter/recipe_3.yaml \\
        --init_checkpoint looking --data_dir records --workdir run_3
    python benchmarks/make_starter.py --before starter --runs run_3 \\
        --data_dir records
"""

import dataclasses
import json
import shutil
from collections.abc import Sequence
from itertools import count, takewhile
from pathlib import Path

import numpy as np
import yaml
from safetensors.numpy import load_file, save_file

from albert_tf2 import command_line, paths, plot
from albert_tf2.checkpoints import locate
from albert_tf2.errors import UserError
from albert_tf2.recipes import PretrainRecipe, load_recipe
from albert_tf2.records.record_set import open_records
from albert_tf2.training import run_folder, run_log
from albert_tf2.training.identity import PRETRAINING

STARTER = Path(__file__).parent.parent / "starter"
MAX_BYTES = 9_000_000
# Of what `convert --to huggingface` writes.
KEPT = ("config.json", "tokenizer_config.json", "text_settings.json")
SOURCES = (
    ("statutes and judicial documents of the PRC", "outside copyright"),
    ("novels of the Ming and Qing dynasties", "public domain"),
    ("documentation of TiDB (pingcap/docs-cn)", "CC BY-SA 3.0"),
    ("OI Wiki (OI-wiki/OI-wiki)", "CC BY-SA 4.0"),
    ("Dive into Deep Learning (d2l-ai/d2l-zh)", "Apache-2.0"),
    ("HowToCook (Anduin2017/HowToCook)", "Unlicense"),
    ("`data/sample/corpus` of this project", "Apache-2.0"),
)
# Of a starter that went on: what stands between its runs.
LOOKING = """\
Before the last run two attention heads were given queries and keys that look
for a token's word in the other text of a pair.
"""
CARD = """\
---
language: zh
license: cc-by-sa-4.0
library_name: transformers
pipeline_tag: fill-mask
tags: [albert, chinese, albert_tf2]
---

# The starter: a small Chinese ALBERT to begin with

```python
from albert_tf2 import load_pretrained

model = load_pretrained("starter")
```

{parameters:,} parameters: {layers} shared layers of {hidden}, {heads} heads,
{vocabulary:,} tokens, at most {positions} of them in a text.

The architecture is albert_tiny's (google layout), the vocabulary its own. It
was trained on one or two processor cores for about {hours} hours, so that every
command has something to run on without a download. It is no match for the
released models (`python -m albert_tf2.convert --list`): for work take
`albert_tiny_zh` and train that on.

## What it was trained on

{documents:,} documents, {tokens:,} tokens, and nothing else:

| texts | licence |
|---|---|
{sources}

The weights and the vocabulary may be passed on under CC BY-SA 4.0, the
strictest of these.

Two thirds of it are law and old novels, so it knows little of today's spoken
Chinese. It repeats what such texts say, their prejudices included.

## How

{recipes}
beside this file: {steps:,} steps of {batch} rows of {length}, {epochs:.1f}
epochs.
{looking}The commands stand in `benchmarks/make_starter.py`.

{curves}

On {examples:,} held-out pairs of passages:

| | masked words: loss | accuracy | sentence order: accuracy |
|---|---|---|---|
{rows}
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the folder, whole or not at all."""
    parser = command_line.parser(__doc__)
    parser.add_argument(
        "--runs",
        required=True,
        nargs="+",
        metavar="RUN",
        help="of pre-training, each begun where the one before ended",
    )
    parser.add_argument(
        "--before",
        metavar="STARTER",
        help="what they went on from: its recipes and curves stay",
    )
    parser.add_argument("--data_dir", required=True, help="their records")
    parser.add_argument("--output", default=str(STARTER))
    arguments = parser.parse_args(argv)

    from albert_tf2.checkpoints import conversion, read_weights

    output = Path(arguments.output)
    runs = [Path(run) for run in arguments.runs]
    run = runs[-1]
    found = read_weights(run)
    with (
        paths.atomic_directory(output, overwrite=True) as folder,
        paths.temporary_folder("starter") as temporary,
    ):
        whole = Path(temporary) / "whole"
        conversion.convert(found, "huggingface", whole)
        halve(whole / locate.SAFETENSORS, folder / locate.SAFETENSORS)
        for name in KEPT:
            shutil.copy(whole / name, folder / name)
        shutil.copy(run / "vocab.txt", folder)
        shutil.copy(STARTER / "__init__.py", folder)
        recipes = []
        if arguments.before:
            before = Path(arguments.before)
            recipes = recipes_of(before)
            if not recipes:
                raise UserError(f"{before} has no recipe.yaml: name a starter")
            for picture in before.glob("*.png"):
                shutil.copy(picture, folder)
        curves = numbered("curves", ".png", len(recipes) + 1)
        plot.draw(joined(runs, Path(temporary)), folder / curves)
        recipes += [run_folder.read_recipe(run, PRETRAINING) for run in runs]
        for number, recipe in enumerate(recipes, 1):
            write_recipe(recipe, folder / numbered("recipe", ".yaml", number))
        card = describe(
            found.config,
            recipes,
            run,
            folder,
            arguments.data_dir,
            looking=LOOKING if arguments.before else "",
        )
        (folder / "README.md").write_text(card, "utf-8")
        size = sum(file.stat().st_size for file in folder.iterdir())
        if size > MAX_BYTES:
            raise SystemExit(f"{size:,} bytes are more than {MAX_BYTES:,}")
    print(f"{output}: {size:,} bytes")
    return 0


def halve(source: Path, goal: Path) -> None:
    """Rounds the tensors of a file to float16."""
    halves = {n: a.astype(np.float16) for n, a in load_file(source).items()}
    assert all(np.isfinite(array).all() for array in halves.values())
    save_file(halves, goal, metadata={"format": "pt"})
    goal.chmod(0o644)  # theirs is for its owner alone


def numbered(name: str, ending: str, number: int) -> str:
    """Returns the file of the first, the second, ... run."""
    return f"{name}{ending}" if number == 1 else f"{name}_{number}{ending}"


def listed(names: Sequence[str]) -> str:
    """Returns "a", "a and b", "a, b and c"."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def recipes_of(starter: Path) -> list[PretrainRecipe]:
    """Returns the recipes of a starter's runs."""
    files = (starter / numbered("recipe", ".yaml", n) for n in count(1))
    existing = takewhile(Path.exists, files)
    return [load_recipe(PretrainRecipe, str(file)) for file in existing]


def joined(runs: Sequence[Path], folder: Path) -> Path:
    """Writes the curves of runs one after another, as if they were one."""
    whole = folder / "starter"
    shutil.copytree(
        runs[-1], whole, ignore=shutil.ignore_patterns("checkpoints")
    )
    for name in (run_log.METRICS, run_log.EVALUATION):
        lines, before = [], 0
        for run in runs:
            found = run_log.read_rows(run / name)
            lines += [row | {"step": row["step"] + before} for row in found]
            before += run_folder.read_recipe(run, PRETRAINING).train_steps
        text = "".join(json.dumps(row) + "\n" for row in lines)
        (whole / name).write_text(text, "utf-8")
    return whole


def write_recipe(recipe, file: Path) -> None:
    """Writes what differs from a recipe that says nothing."""
    plain = type(recipe)()
    changed = {
        name: value
        for name, value in dataclasses.asdict(recipe).items()
        if value != getattr(plain, name)
    }
    file.write_text(yaml.safe_dump(changed, sort_keys=False), "utf-8")


def describe(
    config, recipes, run: Path, folder: Path, data_dir: str, *, looking: str
) -> str:
    """Returns the card, with figures measured on what is in `folder`."""
    manifest = paths.read_json(Path(data_dir) / "manifest.json")
    recipe = recipes[-1]
    steps = sum(recipe.train_steps for recipe in recipes)
    names = [
        f"`{numbered('recipe', '.yaml', n + 1)}`" for n in range(len(recipes))
    ]
    curves = sorted(picture.name for picture in folder.glob("*.png"))
    trained = evaluate(run, recipe, data_dir)
    shipped = evaluate(folder, recipe, data_dir)
    weights = load_file(folder / locate.SAFETENSORS)
    return CARD.format(
        parameters=sum(array.size for array in weights.values()),
        hours=("one", "two", "three")[len(recipes) - 1],
        looking=looking,
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        heads=config.num_attention_heads,
        vocabulary=config.vocab_size,
        positions=config.max_position_embeddings,
        documents=manifest["counts"]["documents"],
        tokens=manifest["counts"]["tokens"],
        sources="\n".join(f"| {text} | {right} |" for text, right in SOURCES),
        recipes=listed(names),
        curves="\n".join(
            f"![Losses, accuracies, rate and speed]({name})" for name in curves
        ),
        steps=steps,
        batch=recipe.global_batch_size,
        length=recipe.max_seq_length,
        epochs=steps
        * recipe.global_batch_size
        / open_records(data_dir).records,
        examples=int(shipped["examples"]),
        rows="\n".join(
            (
                f"| by frequency | {shipped['unigram_loss']:.3f} | | |",
                _row("as trained", trained),
                _row("**these weights, in half precision**", shipped),
            )
        ),
    )


def _row(name: str, figures: dict[str, float]) -> str:
    return (
        f"| {name} | {figures['mlm_loss']:.3f} "
        f"| {figures['mlm_accuracy']:.1%} | {figures['sop_accuracy']:.1%} |"
    )


def evaluate(source: Path, recipe, data_dir: str) -> dict[str, float]:
    """Returns the figures of weights on all held-out records."""
    import tensorflow as tf

    from albert_tf2 import load_pretrained
    from albert_tf2.pretraining.evaluation import Evaluator
    from albert_tf2.pretraining.recipe_parts import create_masker

    records = open_records(data_dir)
    model = load_pretrained(source)
    masker = create_masker(recipe, records, model.config)
    return Evaluator(
        model,
        tf.distribute.get_strategy(),
        records,
        open_records(data_dir, "eval"),
        masker,
        batch_size=32,
    ).evaluate()


if __name__ == "__main__":
    command_line.run(main)
