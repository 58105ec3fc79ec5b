"""The page of every command's flags, from the commands' own parsers.

`site_hooks` puts it into the site. It needs no TensorFlow: a parser is made
before anything heavy is imported.
"""

import argparse
import contextlib
import importlib
from unittest import mock

INTRODUCTION = """\
# Commands: every flag

Made from the commands' own parsers. `--help` of each command shows the same.

`albert-tf2 NAME ...` is `python -m albert_tf2.MODULE ...`. Every command also
takes `--help`, `--version` and `--debug` (shows the traceback of an error).

| exit code | means |
|---|---|
| 0 | done |
| 2 | wrong input, told in one sentence; nothing is half-written |
| 75 | stopped after saving: the same command goes on |
| 130 | interrupted from the keyboard |

Keys of recipes, for `--config` and `--set`: [settings](settings.md).
"""
ELSEWHERE = ("help", "version", "debug")


class _Parsed(Exception):
    """Carries a parser out of a command's `main`."""


def parser_of(module: str) -> argparse.ArgumentParser:
    """Returns the parser that a command would parse its arguments with."""

    def stop(self, *_, **__):
        raise _Parsed(self)

    main = importlib.import_module(module).main
    ways = ("parse_args", "parse_intermixed_args", "parse_known_args")
    with mock.patch.multiple(
        argparse.ArgumentParser, **dict.fromkeys(ways, stop)
    ):
        try:
            main([])
        except _Parsed as found:
            return found.args[0]
    raise AssertionError(f"{module} parsed nothing")


def cell(text: str) -> str:
    """Returns a text as a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


def value(action: argparse.Action) -> str:
    """Returns what stands behind a flag, as its help shows it."""
    if action.nargs == 0:
        return ""
    names = action.metavar or (
        "{" + ",".join(map(str, action.choices)) + "}"
        if action.choices
        else action.dest.upper()
    )
    names = names if isinstance(names, str) else " ".join(names)
    several = {"+": f"{names} ...", "*": f"[{names} ...]", "?": f"[{names}]"}
    return " " + several.get(action.nargs, names)


def table(parser: argparse.ArgumentParser) -> list[str]:
    """Returns the rows of one parser's arguments."""
    rows = ["| | |", "|---|---|"]
    for action in parser._actions:
        # Of `export`, `--version N` is the model's.
        of_all = action.dest in ELSEWHERE and action.nargs == 0
        if of_all or isinstance(action, argparse._SubParsersAction):
            continue
        name = action.option_strings[0] if action.option_strings else ""
        shown = f"{name}{value(action)}".strip()
        needed = " **Required.**" if action.required and name else ""
        # argparse fills in %(default)s.
        text = (action.help or "") % {
            **vars(action),
            "prog": parser.prog,
        }
        rows.append(f"| `{cell(shown)}` | {cell(text)}{needed} |")
    return rows if len(rows) > 2 else []


def section(name: str, module: str) -> str:
    """Returns one command's part of the page."""
    parser = parser_of(module)
    parts = [f"## {name}", f"`python -m {module}`"]
    parts += [f"```text\n{(parser.description or '').strip()}\n```"]
    parts += ["\n".join(table(parser))]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for subname, below in action.choices.items():
                parts += [f"### {name} {subname}", "\n".join(table(below))]
    return "\n\n".join(part for part in parts if part) + "\n"


def page() -> str:
    """Returns the page as the parsers are now."""
    from albert_tf2.__main__ import COMMANDS

    with contextlib.redirect_stdout(None):
        return "\n".join(
            [INTRODUCTION, *(section(*command) for command in COMMANDS.items())]
        )
