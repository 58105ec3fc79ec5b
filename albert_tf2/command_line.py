"""What every command line shares: flags, help, exit codes, last words."""

import argparse
import contextlib
import errno
import os
import sys
import textwrap
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from albert_tf2 import __version__, settings
from albert_tf2.errors import Preempted, UserError
from albert_tf2.settings import ENGINES, STRATEGIES, Setting

EXIT_BAD_INPUT = 2  # argparse's own code for a wrong flag
EXIT_PREEMPTED = 75  # EX_TEMPFAIL of sysexits.h: the same command goes on
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE
DEBUG_VARIABLE = "ALBERT_TF2_DEBUG"
_REMEDIES = {
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "check the path",
    errno.EISDIR: "a file is needed, and this is a folder",
    errno.EACCES: "check its permissions",
    errno.EPERM: "check its permissions",
    errno.EROFS: "choose another place",
    errno.ENOSPC: "free some space or choose another place",
    errno.EDQUOT: "free some space or choose another place",
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.EMFILE: "allow more open files (ulimit -n)",
    errno.EADDRINUSE: "choose another port",
}


class _Parser(argparse.ArgumentParser):
    """An argparse parser whose errors are one line, as all of ours are."""

    def error(self, message: str) -> NoReturn:
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
    made = _Parser(
        prog=prog,
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        # Where a command makes versions of its own, that is its `--version`.
        conflict_handler="resolve",
    )
    made.add_argument(
        "--debug",
        action="store_true",
        default=argparse.SUPPRESS,  # `run` looks for it; commands need not
        help="show the traceback of an error, too",
    )
    made.add_argument(
        "--version", action="version", version=f"albert_tf2 {__version__}"
    )
    return made


def add_setting(
    parser: argparse.ArgumentParser, field: Setting, default: Any = None
) -> None:
    """Adds a flag for a setting, with its check and its sentence.

    Args:
        parser: Receives the flag.
        field: What it sets.
        default: In place of the field's own, where that depends on what is
            installed.
    """
    default = field.default if default is None else default
    names: dict[type, str] = {bool: "BOOL", int: "N", float: "X"}
    metavar = names.get(field.kind, "TEXT")
    if field.choices:
        metavar = f"{{{','.join(field.choices)}}}"
    # A bare --flag of a boolean means true; a list takes several texts.
    many: dict[type, dict[str, Any]] = {
        bool: {"nargs": "?", "const": True},
        tuple: {"nargs": "+"},
    }
    told = [field.limits] if field.limits else []
    if default is not None:
        told.append(f"default: {settings.spelled(default)}")
    sentence = field.sentence.removesuffix(".")
    if sentence[1:2].islower():  # as the other flags' sentences begin
        sentence = sentence[0].lower() + sentence[1:]
    if told:
        sentence += f" ({'; '.join(told)})"
    parser.add_argument(
        f"--{field.name}",
        default=default,
        type=str if field.kind is tuple else _reader(field),
        metavar=metavar,
        help=sentence.replace("%", "%%"),
        **many.get(field.kind, {}),
    )


def add_number(
    parser: argparse.ArgumentParser,
    flag: str,
    default: float | None,
    sentence: str,
    *,
    kind: type = int,
    **limits: Any,
) -> None:
    """Adds a flag that takes a number within limits.

    Args:
        parser: Receives the flag.
        flag: `--name`.
        default: Its value if the flag is not given.
        sentence: What it is.
        kind: int or float.
        **limits: `least`, `most`, `above`, `below` (`settings.setting`).
    """
    field = Setting(
        name=flag.removeprefix("--"),
        kind=kind,
        optional=False,
        default=default,
        sentence=sentence,
        **limits,
    )
    add_setting(parser, field)


def add_boolean(
    parser: argparse.ArgumentParser, flag: str, default: bool, sentence: str
) -> None:
    """Adds a flag that takes true or false; bare, it means true."""
    field = Setting(
        name=flag.removeprefix("--"),
        kind=bool,
        optional=False,
        default=default,
        sentence=sentence,
    )
    add_setting(parser, field)


def add_settings(
    parser: argparse.ArgumentParser,
    settings_class: type,
    names: Iterable[str] | None = None,
    *,
    defaults: Mapping[str, Any] | None = None,
) -> None:
    """Adds a flag for each setting of a class, or for those named."""
    fields = settings.of(settings_class)
    for name in fields if names is None else names:
        add_setting(parser, fields[name], (defaults or {}).get(name))


def of_flags(
    settings_class: type[settings.T],
    flags: argparse.Namespace,
    **values: Any,
) -> settings.T:
    """Makes an instance of a class of settings from its flags.

    Args:
        settings_class: Whose flags `add_settings` added, all or some.
        flags: What was given.
        **values: Fields that have no flag.
    """
    given = {
        name: getattr(flags, name)
        for name in settings.of(settings_class)
        if hasattr(flags, name)
    }
    sources = {name: f"--{name}" for name in (*given, *values)}
    return settings.create(settings_class, {**given, **values}, sources)


def _reader(field: Setting) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            return field.read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def add_recipe(
    parser: argparse.ArgumentParser,
    recipe_class: type,
    *,
    config: str = "a recipe: a YAML file of `key: value` lines",
    keys: str | None = None,
) -> None:
    """Adds `--config` and `--set`, and the recipe's keys to the help.

    Args:
        parser: Receives the flags.
        recipe_class: `PretrainRecipe` or `FinetuneRecipe`.
        config: What `--config` is.
        keys: The command whose help lists the keys, if it is another one.
    """
    listed = f"`{keys} --help` lists them" if keys else "listed below"
    parser.add_argument("--config", metavar="FILE", help=config)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help=f"replace a key of the recipe ({listed}); may be repeated",
    )
    if not keys:
        parser.epilog = (
            "keys of a recipe, for --config and --set:\n"
            f"{_listed(recipe_class)}"
        )


def _listed(settings_class: type) -> str:
    """Returns the keys of a class for the end of a help."""
    lines = []
    for field in settings.of(settings_class).values():
        head = f"  {field.name}={settings.spelled(field.default)}"
        lines.append(f"{head:<38} {field.rule}")
        lines += textwrap.wrap(
            field.sentence,
            78,
            initial_indent=" " * 6,
            subsequent_indent=" " * 6,
        )
    return "\n".join(lines)


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Adds `--engine` (see `prediction.litert_cache`)."""
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default=ENGINES[0],
        help="what computes: tensorflow; litert, which answers the same, loads "
        "no TensorFlow and starts within a second ([litert]); or litert-int8, "
        "which is faster and a little off (default: tensorflow)",
    )


def add_strategy(parser: argparse.ArgumentParser) -> None:
    """Adds `--strategy` and `--tpu` (see `training.distribution`)."""
    parser.add_argument(
        "--strategy",
        default="auto",
        choices=STRATEGIES,
        help="the devices: what is there (auto), one, all GPUs of this "
        "machine (mirrored), several machines by TF_CONFIG (multi_worker), "
        "or a TPU (default: auto)",
    )
    parser.add_argument(
        "--tpu",
        metavar="NAME",
        help="for --strategy tpu: its name or grpc:// address (default: what "
        "the environment names)",
    )


def run(main: Callable[[Sequence[str] | None], int | None]) -> None:
    """Runs `main` and exits: 0 when done, 2 with one line on bad input.

    What the machine refuses (a file, memory) is told in one line too;
    `--debug` or the variable ALBERT_TF2_DEBUG shows where it happened.
    Anything else is a fault of ours and keeps its traceback.
    """
    # TensorFlow's C++ log tells every start what it did not find (a GPU, an
    # instruction set); what fails is raised all the same.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        code = main(None)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output has gone, as `| head` does. Python would
        # complain once more when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_BROKEN_PIPE
    except Preempted as error:
        print(error, file=sys.stderr)
        code = EXIT_PREEMPTED
    except KeyboardInterrupt:
        _show_traceback()
        print("interrupted", file=sys.stderr)
        code = EXIT_INTERRUPTED
    except Exception as error:
        sentence = _sentence(error)
        if sentence is None:
            raise
        _show_traceback()
        print(f"error: {sentence}", file=sys.stderr)
        code = EXIT_BAD_INPUT
    sys.exit(code or 0)


def _show_traceback() -> None:
    if "--debug" in sys.argv or os.environ.get(DEBUG_VARIABLE):
        traceback.print_exc()


def _sentence(error: Exception) -> str | None:
    """Returns what to tell of an exception; None for a fault of ours."""
    if isinstance(error, UserError):
        return str(error)
    more = "(--debug shows where)"
    # TensorFlow's own exception, by name, for it may not be loaded: it means
    # a device's memory, or a full disk.
    exhausted = type(error).__name__ == "ResourceExhaustedError"
    if exhausted and "space left on device" in str(error):
        return f"no space left: {_REMEDIES[errno.ENOSPC]} {more}"
    if isinstance(error, MemoryError) or exhausted:
        return (
            "out of memory: take a smaller batch, shorter rows or a smaller "
            f"model, or a machine with more memory {more}"
        )
    if isinstance(error, RecursionError):
        return f"a file is nested too deeply to be read: check it {more}"
    if isinstance(error, OSError):
        reason = error.strerror or str(error) or type(error).__name__
        reason = " ".join(reason.split())
        place = f"{error.filename}: " if error.filename else ""
        remedy = _REMEDIES.get(error.errno or 0)
        return f"{place}{reason}{f': {remedy}' if remedy else ''} {more}"
    return None


_TERMINAL = threading.RLock()


@contextlib.contextmanager
def nobody_hears() -> Iterator[None]:
    """Sends to nowhere what C++ writes to the terminal meanwhile.

    The process has one terminal, so threads take turns.
    """
    with _TERMINAL:
        sys.stderr.flush()
        try:
            terminal = os.dup(2)
        except OSError:  # it has been closed
            yield
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
            os.close(nowhere)
