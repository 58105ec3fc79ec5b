"""Train sentence vectors on LCQMC, with its labels and without: one table.

From one pre-trained model:

    as they are    the mean of the tokens, nothing trained
    whitened       the same, whitened on --whiten_sentences training texts
    SimCSE         trained on the texts of the training file, without labels;
                   and whitened besides
    CoSENT         trained on its pairs with their labels

All are measured on the same test pairs: AUC and Spearman of the cosine, and
the accuracy at the best threshold. The best evaluation on the dev pairs is kept
of both runs, so that SimCSE sees labels for that choice alone. A second call
resumes.

    python benchmarks/sentence_vectors.py --data_dir datasets/lcqmc \\
      --init_checkpoint runs/pretrain --workdir runs/vectors
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from albert_tf2 import command_line, finetune, paths
from albert_tf2.prediction import similarity
from albert_tf2.prediction.predictor import Predictor
from albert_tf2.settings import COSENT, SIMCSE
from albert_tf2.tasks import registry
from albert_tf2.tasks.text_rows import TextRow

TASK = "sentence_vectors"
AS_THEY_ARE, WHITENED = "as they are", "whitened"
TRAINED = {"SimCSE": SIMCSE, "CoSENT": COSENT}
# What a budget of half an hour on two cores allows; --set changes it.
SETTINGS = {
    # Its best evaluation comes within some hundred steps.
    SIMCSE: ("num_train_epochs=1", "max_train_rows=32000", "eval_every=100"),
    # One pass sees no pair twice: there is nothing for dropout to keep it from.
    COSENT: (
        "num_train_epochs=1",
        "learning_rate=5e-4",
        "hidden_dropout_prob=0",
        "attention_probs_dropout_prob=0",
    ),
}


def measure(
    predictor: Predictor, pairs: Sequence[TextRow]
) -> similarity.PairFigures:
    """Returns the figures of a model on labelled pairs."""
    cosines = predictor.similarity(
        [row.text_a for row in pairs], [row.text_b or "" for row in pairs]
    )
    labels = np.array([int(float(row.label)) for row in pairs])
    return similarity.pair_figures(cosines, labels)


def train(loss: str, args: argparse.Namespace) -> tuple[Path, dict[str, Any]]:
    """Trains by one loss, or goes on; returns the workdir and its results."""
    asked = [*SETTINGS[loss], f"vector_loss={loss}", *args.set]
    recipe = finetune.read_recipe(TASK, None, asked)
    task = registry.from_recipe(TASK, recipe)
    data = finetune.read_data(task, args.data_dir, recipe)
    workdir = Path(args.workdir) / loss
    results = finetune.fine_tune(
        task,
        data,
        init_checkpoint=args.init_checkpoint,
        recipe=recipe,
        workdir=workdir,
        vocab_file=args.vocab_file,
    )
    return workdir, results


def rows_of(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Trains and measures; returns the rows of the table."""
    task = registry.create("lcqmc")
    pairs = task.read(args.data_dir, "test")[: args.max_pairs]
    found: list[dict[str, Any]] = []

    def add(name: str, predictor: Predictor, **facts: Any) -> None:
        figures = measure(predictor, pairs)._asdict()
        found.append({"vectors": name, **facts, **figures})
        paths.write_json(Path(args.workdir) / "results.json", found)

    predictor = Predictor(args.init_checkpoint, vocab_file=args.vocab_file)
    add(AS_THEY_ARE, predictor)
    texts = dict.fromkeys(
        text
        for row in task.read(args.data_dir, "train")
        for text in (row.text_a, row.text_b)
    )
    sentences = sorted(texts)[:: max(1, len(texts) // args.whiten_sentences)]

    def add_whitened(name: str, predictor: Predictor, **facts: Any) -> None:
        for dimensions in args.dimensions:
            predictor.whiten(sentences, dimensions=dimensions)
            add(f"{name} to {dimensions}", predictor, **facts)

    add_whitened(WHITENED, predictor)
    for name in args.train:
        loss = TRAINED[name]
        workdir, results = train(loss, args)
        facts = {key: results[key] for key in ("steps", "seconds")}
        predictor = Predictor(workdir)
        add(name, predictor, **facts)
        if loss == SIMCSE:
            add_whitened(f"{name}, {WHITENED}", predictor, **facts)
    return found


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the results as Markdown."""
    lines = [
        "| vectors | steps | seconds | AUC | Spearman | best accuracy |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        steps = f"{row['steps']:,}" if "steps" in row else ""
        seconds = f"{row['seconds']:,.0f}" if "seconds" in row else ""
        lines.append(
            f"| {row['vectors']} | {steps} | {seconds} | {row['auc']:.3f} | "
            f"{row['spearman']:.3f} | {100 * row['accuracy']:.1f} |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line."""
    parser = command_line.parser(
        __doc__, "python benchmarks/sentence_vectors.py"
    )
    parser.add_argument("--init_checkpoint", required=True)
    parser.add_argument("--data_dir", required=True, help="LCQMC's files")
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--vocab_file", help="default: beside the checkpoint")
    parser.add_argument(
        "--train", nargs="+", choices=TRAINED, default=list(TRAINED)
    )
    parser.add_argument("--max_pairs", type=int, help="default: all of them")
    parser.add_argument("--whiten_sentences", type=int, default=10_000)
    parser.add_argument("--dimensions", type=int, nargs="+", default=[256, 64])
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE"
    )
    args = parser.parse_args(argv)
    Path(args.workdir).mkdir(parents=True, exist_ok=True)
    shown = table(rows_of(args))
    print("\n" + shown)
    (Path(args.workdir) / "results.md").write_text(shown + "\n")
    return 0


if __name__ == "__main__":
    command_line.run(main)
