"""What every command line shares: the parser's opening and the exit codes."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from albert_tf2.errors import UserError

EXIT_BAD_INPUT = 2  # argparse's own code for a wrong flag
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it


class _Parser(argparse.ArgumentParser):
    """An argparse parser whose errors are one line, as all of ours are."""

    def error(self, message: str) -> None:
        self.exit(
            EXIT_BAD_INPUT,
            f"error: {message} (see `{self.prog} --help`)\n",
        )


def parser(doc: str, prog: str | None = None) -> argparse.ArgumentParser:
    """Returns a parser whose `--help` opens with a module's docstring.

    Args:
        doc: The module docstring; its last paragraph is a command to copy.
        prog: The command's name as the user typed it, for instance
            `python -m albert_tf2.pretrain`.
    """
    return _Parser(
        prog=prog,
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def run(main: Callable[[Sequence[str] | None], int | None]) -> None:
    """Runs `main` and exits: 0 when done, 2 with one line on bad input."""
    # TensorFlow's C++ log tells every start what it did not find (a GPU, an
    # instruction set); what fails is raised all the same.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        code = main(None)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = EXIT_INTERRUPTED
    sys.exit(code or 0)
