"""Every command of the project behind one name.

`albert-tf2 pretrain ...` is `python -m albert_tf2.pretrain ...`, and so are the
others. Each has a help of its own:

albert-tf2 pretrain --help
"""

import ast
import importlib
import sys
from collections.abc import Sequence
from importlib import util
from pathlib import Path

from albert_tf2 import command_line
from albert_tf2.errors import UserError, nearest_hint

PROG = "albert-tf2"
# In the order of the work: text, training, use, publishing, and checks.
MODULES = (
    "quickstart",
    "data.vocabulary",
    "data.report",
    "data.build_pretraining_data",
    "data.spark_build",
    "data.inspect_records",
    "pretrain",
    "plot",
    "finetune",
    "compare",
    "predict",
    "serve",
    "convert",
    "hub_export.export",
    "hub_export.verify",
    "hub_example",
    "clue_submission",
    "tpu_check",
)
COMMANDS = {name.rpartition(".")[2]: f"albert_tf2.{name}" for name in MODULES}


def main(argv: Sequence[str] | None = None) -> int | None:
    """Runs the command that the first argument names."""
    name, *arguments = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name.startswith("-"):
        doc = f"{__doc__}\ncommands:\n{_table()}"
        parser = command_line.parser(doc, PROG)
        parser.usage = f"{PROG} COMMAND ..."
        parser.parse_args([name])
        raise UserError(f"a command comes first (see `{PROG} --help`)")
    if name not in COMMANDS:
        raise UserError(
            f"unknown command `{name}`{nearest_hint(name, list(COMMANDS))} "
            f"(see `{PROG} --help`)"
        )
    return importlib.import_module(COMMANDS[name]).main(arguments)


def _table() -> str:
    width = max(map(len, COMMANDS))
    return "\n".join(
        f"  {name:<{width}}  {_purpose(module)}"
        for name, module in COMMANDS.items()
    )


def _purpose(module: str) -> str:
    """Returns the first line of a module's docstring, without running it."""
    found = util.find_spec(module)
    assert found is not None and found.origin is not None
    source = Path(found.origin).read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]


def run() -> None:
    """What the console script calls."""
    command_line.run(main)


if __name__ == "__main__":
    run()
