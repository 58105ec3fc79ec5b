"""Write a CLUE submission from predictions, checked against the test files.

Every `--add` names a task, the predictions that `finetune` wrote for its test
rows, and the folder of the task's files. Any set of tasks will do. What would
score 0 (a row short, ids out of order, class indices in place of labels) is
refused with the reason.

    python -m albert_tf2.clue_submission --team us --output_dir submission \\
      --add tnews runs/tnews/predictions/test.jsonl tnews/ \\
      --add afqmc runs/afqmc/predictions/test.jsonl afqmc/
"""

from collections.abc import Sequence

from albert_tf2 import command_line
from albert_tf2.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line."""
    from albert_tf2.tasks import clue

    parser = command_line.parser(
        __doc__, "python -m albert_tf2.clue_submission"
    )
    parser.add_argument(
        "--add",
        nargs=3,
        action="append",
        required=True,
        metavar=("TASK", "PREDICTIONS", "DATA_DIR"),
        help="a task, its predictions (predictions/test.jsonl of a run) and "
        "its files; once for each task",
    )
    parser.add_argument(
        "--output_dir",
        required=True,
        metavar="FOLDER",
        help="where the zip and the files in it go",
    )
    parser.add_argument(
        "--team",
        required=True,
        metavar="NAME",
        help="the name that the leaderboard shows: letters, digits, - and _",
    )
    parser.add_argument(
        "--version",
        default="1.1",
        choices=clue.VERSIONS,
        help="which of CLUE's test files were predicted (default: 1.1)",
    )
    parser.add_argument(
        "--any_size",
        action="store_true",
        help="accept test files of another length than the official ones",
    )
    args = parser.parse_args(argv)
    names = [name for name, _, _ in args.add]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise UserError(f"--add names {twice.pop()} twice")
    path = clue.write_submission(
        {name: (predictions, folder) for name, predictions, folder in args.add},
        args.output_dir,
        team=args.team,
        version=args.version,
        any_size=args.any_size,
    )
    print(path)
    return 0


if __name__ == "__main__":
    command_line.run(main)
