"""Compares two fine-tuning runs on the same rows: better, or by chance?

    python -m albert_tf2.compare runs/a runs/b --split test

Prints both figures with their intervals, the rows that only one of the two got
wrong, and McNemar's probability that two equally good models differ as much.
"""

from collections.abc import Sequence
from typing import Any

from albert_tf2 import command_line, paths
from albert_tf2.errors import UserError
from albert_tf2.training import identity, run_folder

# Below this a difference is not put down to chance, by custom.
SIGNIFICANT = 0.05


def main(argv: Sequence[str] | None = None) -> int:
    """Compares; returns the exit code."""
    parser = command_line.parser(__doc__, prog="python -m albert_tf2.compare")
    parser.add_argument("first", help="the folder of a fine-tuning run")
    parser.add_argument("second", help="the folder of another one")
    parser.add_argument(
        "--split",
        choices=("dev", "test"),
        default="dev",
        help="the rows to compare on (default: dev)",
    )
    arguments = parser.parse_args(argv)
    runs = (arguments.first, arguments.second)
    print(compare(*runs, arguments.split))
    return 0


def compare(first: paths.PathLike, second: paths.PathLike, split: str) -> str:
    """Returns the comparison as a few lines.

    Raises:
        UserError: If one has no report, or they were judged by other rows.
    """
    from albert_tf2.finetuning import report
    from albert_tf2.tasks import outcomes

    for workdir in (first, second):
        run_folder.expect(workdir, identity.FINETUNING)
    sums = [_sum_of(workdir, split) for workdir in (first, second)]
    reports, wrong = zip(
        *(report.read(workdir, split) for workdir in (first, second)),
        strict=True,
    )
    # Where no run.json tells, the number of rows is all there is.
    rows = [found["rows"] for found in reports]
    if all(sums) and sums[0] != sums[1]:
        raise UserError(
            f"{first} and {second} were judged by other {split} rows: fine-"
            "tune both with the same files"
        )
    if rows[0] != rows[1]:
        raise UserError(
            f"{first} was judged by {rows[0]:,} {split} rows and {second} by "
            f"{rows[1]:,}: fine-tune both with the same files"
        )
    only_first, only_second, chance = outcomes.mcnemar(*wrong)
    lines = [f"{split}, {rows[0]:,} rows"]
    for workdir, found, alone in zip(
        (first, second), reports, (only_first, only_second), strict=True
    ):
        lines.append(
            f"{workdir}: {found['figure']} {found['value']:.4f} "
            f"({found['low']:.4f} to {found['high']:.4f}), "
            f"{found['errors']:,} rows wrong, {alone:,} of them right in the "
            "other"
        )
    verdict = (
        "two equally good models would hardly differ as much"
        if chance < SIGNIFICANT
        else "two equally good models may well differ as much"
    )
    lines.append(f"McNemar p = {chance:.4g}: {verdict}")
    return "\n".join(lines)


def _sum_of(workdir: paths.PathLike, split: str) -> Any:
    """Returns the SHA-256 of a split's rows; None where nothing tells it."""
    values: Any = run_folder.read(workdir)
    for key in ("data", split, "sha256"):
        values = values.get(key) if isinstance(values, dict) else None
    return values


if __name__ == "__main__":
    command_line.run(main)
