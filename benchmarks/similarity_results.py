"""Measure cosines on labelled pairs: as they are, and whitened.

Whitening is fitted on sentences of the training file, without their labels.
AUC is the chance that a similar pair has a larger cosine than another one.

    python benchmarks/similarity_results.py --model albert_tiny_zh \\
      --data_dir datasets/lcqmc
"""

from collections.abc import Sequence

from albert_tf2 import command_line
from albert_tf2.prediction import similarity
from albert_tf2.prediction.predictor import Predictor
from albert_tf2.tasks import registry


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line."""
    parser = command_line.parser(
        __doc__, "python benchmarks/similarity_results.py"
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--data_dir", required=True, help="LCQMC's files")
    parser.add_argument("--max_pairs", type=int, default=4000)
    parser.add_argument("--max_sentences", type=int, default=10_000)
    parser.add_argument("--dimensions", type=int, nargs="+", default=[256, 64])
    args = parser.parse_args(argv)
    task = registry.create("lcqmc")
    pairs = task.read(args.data_dir, "test")[: args.max_pairs]
    labels = [int(row.label) for row in pairs]
    rows = task.read(args.data_dir, "train")[: args.max_sentences // 2]
    sentences = sorted({t for row in rows for t in (row.text_a, row.text_b)})
    predictor = Predictor(args.model)

    print("| pooling | vectors | AUC | Spearman | best accuracy |")
    print("|---|---|---|---|---|")
    for pooling in ("cls", "mean"):
        a, b, sample = (
            predictor.embed(texts, pooling=pooling)
            for texts in (
                [row.text_a for row in pairs],
                [row.text_b for row in pairs],
                sentences,
            )
        )
        variants = {"as they are": lambda vectors: vectors}
        for count in args.dimensions:
            if count <= sample.shape[1]:
                variants[f"whitened to {count}"] = similarity.Whitening.fit(
                    sample, count
                )
        for name, change in variants.items():
            found = similarity.pair_figures(
                similarity.cosines(change(a), change(b)), labels
            )
            print(
                f"| {pooling} | {name} | {found.auc:.3f} | "
                f"{found.spearman:.3f} | {100 * found.accuracy:.1f} |"
            )
    return 0


if __name__ == "__main__":
    command_line.run(main)
