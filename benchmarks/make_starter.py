"""Makes the model that comes along with the package, out of a run.

Writes the run's newest weights in half precision, as a Hugging Face folder
that transformers reads too, with the recipe, the curves and a card. What is
written is loaded again and evaluated on the run's held-out records beside the
run's own weights, so the card says what users get, not what was trained.

The run itself (nothing but texts that may be passed on):

    python -m albert_tf2.data.vocabulary --vocab_size 8192 \\
        --character_set gb2312 --output vocab.txt \\
        --input_file 'free/*.zst' 'data/sample/corpus/*.txt'
    python -m albert_tf2.data.build_pretraining_data --vocab_file vocab.txt \\
        --max_seq_length 128 --output_dir records \\
        --input_file 'free/*.zst' 'data/sample/corpus/*.txt'
    python -m albert_tf2.pretrain --config configs/pretrain_tiny_budget.yaml \\
        --set vocab_size_from_data=true --data_dir records --workdir run
    python benchmarks/make_starter.py --run run --data_dir records
"""

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml
from safetensors.numpy import load_file, save_file

from albert_tf2 import command_line, paths, plot
from albert_tf2.checkpoints import locate
from albert_tf2.records.record_set import open_records
from albert_tf2.training import run_folder
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
was trained on two processor cores for about an hour, so that every command has
something to run on without a download. It is no match for the released models
(`python -m albert_tf2.convert --list`): for work take `albert_tiny_zh` and
train that on.

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

`recipe.yaml` beside this file, {steps:,} steps of {batch} rows of {length}:
{epochs:.1f} epochs. The commands stand in `benchmarks/make_starter.py`.

![Losses, accuracies, rate and speed](curves.png)

On {examples:,} held-out pairs of passages:

| | masked words: loss | accuracy | sentence order: accuracy |
|---|---|---|---|
{rows}
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the folder, whole or not at all."""
    parser = command_line.parser(__doc__)
    parser.add_argument("--run", required=True, help="of pre-training")
    parser.add_argument("--data_dir", required=True, help="its records")
    parser.add_argument("--output", default=str(STARTER))
    arguments = parser.parse_args(argv)

    from albert_tf2.checkpoints import conversion, read_weights

    output = Path(arguments.output)
    run = Path(arguments.run)
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
        recipe = run_folder.read_recipe(run, PRETRAINING)
        write_recipe(recipe, folder / "recipe.yaml")
        plot.draw(run, folder / "curves.png")
        card = describe(found.config, recipe, run, folder, arguments.data_dir)
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


def write_recipe(recipe, file: Path) -> None:
    """Writes what differs from a recipe that says nothing."""
    plain = type(recipe)()
    changed = {
        name: value
        for name, value in dataclasses.asdict(recipe).items()
        if value != getattr(plain, name)
    }
    file.write_text(yaml.safe_dump(changed, sort_keys=False), "utf-8")


def describe(config, recipe, run: Path, folder: Path, data_dir: str) -> str:
    """Returns the card, with figures measured on what is in `folder`."""
    manifest = paths.read_json(Path(data_dir) / "manifest.json")
    trained = evaluate(run, recipe, data_dir)
    shipped = evaluate(folder, recipe, data_dir)
    weights = load_file(folder / locate.SAFETENSORS)
    return CARD.format(
        parameters=sum(array.size for array in weights.values()),
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        heads=config.num_attention_heads,
        vocabulary=config.vocab_size,
        positions=config.max_position_embeddings,
        documents=manifest["counts"]["documents"],
        tokens=manifest["counts"]["tokens"],
        sources="\n".join(f"| {text} | {right} |" for text, right in SOURCES),
        steps=recipe.train_steps,
        batch=recipe.global_batch_size,
        length=recipe.max_seq_length,
        epochs=recipe.train_steps
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
