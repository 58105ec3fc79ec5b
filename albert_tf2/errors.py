"""How a mistake of the user's is told: one exception, one sentence."""

import difflib
import reprlib
from collections.abc import Iterable, Sequence
from importlib import util
from typing import Any

# Characters of a value that a message repeats.
MAX_SHOWN = 100
# Where pip fetches the project from; empty while it has no public address.
# The name albert-tf2 stands on no registry: a line that asks for it alone
# would install whatever somebody registers under it.
REPOSITORY = ""


class UserError(ValueError):
    """A mistake in a file, a flag or a setting, told in one sentence.

    The sentence names the file, the line or key, the value received and the
    remedy. Command lines print it as `error: ...` and exit with code 2
    (`command_line.run`); library callers catch it as a `ValueError`.

    Example:
        >>> try:
        ...     check_choice("layout", "mine", ("brightmart", "google"))
        ... except UserError as error:
        ...     print(error)
        `layout` must be one of brightmart, google. Received: `layout='mine'`
    """


def install_line(extra: str) -> str:
    """Returns the command that installs one of the project's extras."""
    if REPOSITORY:
        return f"pip install 'albert_tf2[{extra}] @ git+{REPOSITORY}'"
    return f"pip install -e '.[{extra}]' in the checkout"


def require(what: str, modules: Sequence[str], extra: str) -> None:
    """Raises a `UserError` unless the modules are installed.

    So that a command says what it lacks before it starts; nothing is imported.

    Args:
        what: Who needs them, the beginning of the sentence.
        modules: Names of top-level modules.
        extra: The project's extra that brings them.
    """
    missing = [name for name in modules if not util.find_spec(name)]
    if missing:
        raise UserError(
            f"{what} needs {', '.join(missing)}: {install_line(extra)}"
        )


class Preempted(Exception):
    """A run was asked to stop, and saved: the same command goes on.

    Command lines exit with code 75 (`command_line.run`).
    """


def check_choice(
    name: str, value: Any, choices: Iterable[str], *, source: str = ""
) -> None:
    """Raises a `UserError` unless a value is one of the choices.

    Args:
        name: What is chosen: a key, an argument.
        value: What was asked for.
        choices: What there is.
        source: Where it was asked, a file or a flag.
    """
    choices = tuple(choices)
    if value not in choices:
        raise UserError(
            f"{source and source + ': '}`{name}` must be one of "
            f"{', '.join(choices)}"
            f"{nearest_hint(value, choices) or '.'} "
            f"Received: `{name}={shown(value)}`"
        )


def nearest_hint(value: Any, choices: Sequence[str]) -> str:
    """Returns the end of a sentence that names the nearest choice."""
    # Comparing is slow for long texts, and pointless.
    if not isinstance(value, str) or len(value) > MAX_SHOWN:
        return ""
    near = difflib.get_close_matches(value, choices, n=1)
    return f"; did you mean `{near[0]}`?" if near else ""


def unknown_key(source: str, key: Any, known: Sequence[str]) -> UserError:
    """Returns the error for a key that is none of `known`."""
    hint = (
        nearest_hint(key, known) or f"; known keys: {', '.join(sorted(known))}"
    )
    return UserError(f"{source}: unknown key `{cut(str(key))}`{hint}")


class _Short(reprlib.Repr):
    """A `repr` of bounded length, whatever the value."""

    def __init__(self):
        super().__init__()
        self.maxstring = self.maxother = MAX_SHOWN

    def repr_int(self, value, level):
        if value.bit_length() > 256:
            return f"a number of {value.bit_length() * 30103 // 100_000} digits"
        return repr(value)


def shown(value: Any) -> str:
    """Returns a value as a message repeats it: short, and one line."""
    return cut(_Short().repr(value))


def cut(text: str) -> str:
    """Returns the beginning of a text as a message repeats it."""
    text, rest = text[:MAX_SHOWN], text[MAX_SHOWN:]
    line = "".join(c if c.isprintable() else "�" for c in text)
    return f"{line}..." if rest else line
