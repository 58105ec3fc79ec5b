"""What a setting may be: its type, range, choices and one sentence of help.

They stand beside the field, in a frozen dataclass:

    train_steps: int = setting(125_000, "Optimizer steps.", least=1, most=10**9)

From there come the check (`check`), the reading of files, `--set` and flags
(`create`), `--help` (`command_line`) and docs/settings.md. Rules that tie
fields together stand in the class's `__post_init__`, after `check`.
"""

import dataclasses
import math
import numbers
import operator
import re
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from albert_tf2.errors import UserError, cut, nearest_hint, shown, unknown_key

# Names that a setting and the library function behind it share.
LABEL_STYLES = ("plain", "albert_zh")
COUNTED = "counted"
WORD_VECTORS = ("random", COUNTED)
CONSTRUCTED = "constructed"
ATTENTION_HEADS = ("random", CONSTRUCTED)
LAMB_ADAPTATIONS = ("paper", "google")
ON_ERROR = ("fail", "skip")
OPTIMIZERS = ("lamb", "adamw")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
# What stands for a text: the mean of its tokens' vectors, that of [CLS], or
# the pooler's.
POOLINGS = ("mean", "cls", "pooled")
# What computes predictions; the two of LiteRT load no TensorFlow.
ENGINES = ("tensorflow", "litert", "litert-int8")
COSENT, SIMCSE = VECTOR_LOSSES = ("cosent", "simcse")
STRATEGIES = ("auto", "one_device", "mirrored", "multi_worker", "tpu")

# Bounds that several classes share. They are there to catch slips: what is
# beyond them would be endless, or too large for any machine.
MAX_LENGTH = 1 << 16
MAX_STEPS = 10**9
MAX_BATCH = 1 << 20
# Below 2^31, with room for the seeds that follow from one (`num_seeds`).
MAX_SEED = 2_000_000_000

REQUIRED = dataclasses.MISSING
# A whole number of so many digits is out of every range. int() of thousands
# of them is slow, and of more than 4,300 an error.
_INT = re.compile(r"[-+]?[0-9]{1,40}")
_FLOAT = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[-+]?[0-9]+)?")
_TIME = re.compile(r"([0-9]{1,7}(?:\.[0-9]{1,3})?)([smhd])")
_TIME_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_TRUTH = {
    **dict.fromkeys(("true", "yes", "on"), True),
    **dict.fromkeys(("false", "no", "off"), False),
}
_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "one line of text",
    tuple: "a list of different texts, as in [a, b]",
}
_WRONG = object()
# What `of` has read of each class already.
_READ: dict[type, Mapping[str, "Setting"]] = {}
T = TypeVar("T")


class SettingError(UserError):
    """A setting that breaks a rule; `create` adds where it came from."""

    def __init__(self, source: str, problem: str, names: Sequence[str]):
        super().__init__(f"{source}: {problem}")
        self.problem = problem
        self.names = tuple(names)


def seconds(text: str) -> float:
    """Returns the seconds of a time such as 90s, 150m, 1.5h; 0 for others."""
    match = _TIME.fullmatch(text)
    return float(match[1]) * _TIME_UNITS[match[2]] if match else 0.0


def setting(
    default: Any,
    sentence: str,
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: Sequence[str] = (),
    blanks: bool = False,
    repeats: bool = False,
) -> Any:
    """Declares a field of a class of settings.

    Args:
        default: Its value if nothing is said; `REQUIRED` for none.
        sentence: What it does, in which unit, and whose number it is.
        least: The smallest number allowed.
        most: The largest number allowed.
        above: A bound that the number must exceed.
        below: A bound that it must not reach.
        choices: The texts allowed.
        blanks: Whether empty texts may stand in a list.
        repeats: Whether a text may stand in a list more than once.
    """
    return dataclasses.field(
        default=default,
        metadata={
            "sentence": sentence,
            "least": least,
            "most": most,
            "above": above,
            "below": below,
            "choices": tuple(choices),
            "blanks": blanks,
            "repeats": repeats,
        },
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """One field, as its declaration describes it (see `setting`).

    Attributes:
        name: The field's name: the key in files, the flag's name.
        kind: bool, int, float, str, or tuple (of texts).
        optional: Whether None (`null` in files) is a value.
    """

    name: str
    kind: type
    optional: bool
    default: Any
    sentence: str = ""
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()
    blanks: bool = False
    repeats: bool = False

    @property
    def rule(self) -> str:
        """Says what a value must be, e.g. "a whole number from 1 to 9"."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        of = " of" if self.limits.startswith("at ") else ""
        limits = f"{of} {self.limits}" if self.limits else ""
        null = ", or null" if self.optional else ""
        kind = _KINDS[self.kind]
        if self.repeats:
            kind = kind.replace("different ", "")
        return f"{kind}{limits}{null}"

    @property
    def limits(self) -> str:
        """Says the range of a number, e.g. "from 1 to 9"."""
        if self.least is not None and self.most is not None:
            return f"from {_plain(self.least)} to {_plain(self.most)}"
        named = {
            "above": self.above,
            "at least": self.least,
            "below": self.below,
            "at most": self.most,
        }
        return " and ".join(
            f"{word} {_plain(limit)}"
            for word, limit in named.items()
            if limit is not None
        )

    def check(self, value: Any) -> Any:
        """Returns a value as the field's type; raises `ValueError` if wrong.

        Numbers of other libraries are taken; booleans are no numbers, and
        3.0 is no whole number.
        """
        found = self._as_kind(value)
        if found is _WRONG:
            raise ValueError(self._refusal(value, shown(value)))
        return found

    def read(self, written: str | Sequence[str] | None) -> Any:
        """Checks what a person wrote in a file or behind a flag.

        The field's type decides how a text is read: `no` is false for a
        boolean and a name in a list of labels, and 1e-4 is a number.
        """
        value: Any = written
        if isinstance(written, str):
            text = written.strip().lower()
            if self.kind is bool:
                value = _TRUTH.get(text, written)
            elif self.kind is int and _INT.fullmatch(text.replace("_", "")):
                value = int(text.replace("_", ""))
        found = self._as_kind(value)
        if found is _WRONG:
            received = "null" if written is None else shown(written)
            if isinstance(written, str) and written:
                received = cut(written)  # as it was typed
            raise ValueError(self._refusal(written, received))
        return found

    def _as_kind(self, value: Any) -> Any:
        """Returns a value as this field's type, or `_WRONG`."""
        if value is None and self.optional:
            return None
        if self.kind is bool:
            return value if isinstance(value, bool) else _WRONG
        if self.kind is tuple:
            good = _are_names(value, blanks=self.blanks, repeats=self.repeats)
            return tuple(value) if good else _WRONG
        if self.kind is str:
            good = value in self.choices if self.choices else _is_line(value)
            return value if good else _WRONG
        number = _number(value, self.kind)
        return _WRONG if number is None or self._is_out(number) else number

    def _is_out(self, number: float) -> bool:
        return (
            (self.least is not None and number < self.least)
            or (self.most is not None and number > self.most)
            or (self.above is not None and number <= self.above)
            or (self.below is not None and number >= self.below)
        )

    def _refusal(self, value: Any, received: str) -> str:
        return (
            f"`{self.name}` must be {self.rule}"
            f"{nearest_hint(value, self.choices) or '.'} "
            f"Received: `{self.name}={received}`"
        )


def _number(value: Any, kind: type) -> int | float | None:
    """Returns a finite number of a kind; None for what is none."""
    if isinstance(value, bool):
        return None
    if kind is int:
        whole = isinstance(value, numbers.Integral)
        return operator.index(value) if whole else None
    if isinstance(value, str):
        # Files hold numbers such as 1e-4 as texts.
        text = value.strip().lower().replace("_", "")
        value = float(text) if _FLOAT.fullmatch(text) else None
    if not isinstance(value, numbers.Real):
        return None
    try:
        number = float(value) + 0.0  # -0.0 becomes 0.0
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _is_line(value: Any) -> bool:
    """Whether a value can be a name or a path: one clean line of text."""
    if not isinstance(value, str) or not value.strip():
        return False
    # Control characters, and halves of surrogate pairs.
    return not re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", value)


def _are_names(values: Any, *, blanks: bool, repeats: bool) -> bool:
    """Whether a value is a list of texts that tell things apart."""
    if not isinstance(values, list | tuple):
        return False
    names = [name for name in values if not (blanks and name == "")]
    if not all(map(_is_line, names)):
        return False
    return repeats or len(set(names)) == len(names)


def of(settings_class: type) -> Mapping[str, Setting]:
    """Returns the settings of a dataclass by name, in their order."""
    if settings_class in _READ:
        return _READ[settings_class]
    hints = typing.get_type_hints(settings_class)
    found = {}
    for field in dataclasses.fields(settings_class):
        kind = hints[field.name]
        parts = [kind]
        if typing.get_origin(kind) in (typing.Union, types.UnionType):
            parts = list(typing.get_args(kind))
        (kind,) = (part for part in parts if part is not type(None))
        found[field.name] = Setting(
            name=field.name,
            kind=typing.get_origin(kind) or kind,
            optional=type(None) in parts,
            default=field.default,
            **field.metadata,
        )
    return _READ.setdefault(settings_class, types.MappingProxyType(found))


def check(instance: Any) -> None:
    """Checks each field of a frozen dataclass; for its `__post_init__`.

    Raises:
        SettingError: For the first field that is wrong.
    """
    source = type(instance).__name__
    for name, field in of(type(instance)).items():
        try:
            value = field.check(getattr(instance, name))
        except ValueError as error:
            raise SettingError(source, str(error), [name]) from None
        object.__setattr__(instance, name, value)


def check_number(
    name: str, value: Any, *, kind: type = int, **limits: Any
) -> Any:
    """Returns an argument that must be a number within limits.

    Args:
        name: The argument's name.
        value: What was given.
        kind: int or float.
        **limits: `least`, `most`, `above`, `below` (`setting`).

    Raises:
        UserError: For anything else.
    """
    field = Setting(
        name=name, kind=kind, optional=False, default=None, **limits
    )
    try:
        return field.check(value)
    except ValueError as error:
        raise UserError(str(error)) from None


def broken(instance: Any, rule: str, *names: str) -> SettingError:
    """Returns the error for a rule that ties several fields together.

    Args:
        instance: Whose fields they are.
        rule: The sentence, e.g. "`a` must be divisible by `b`".
        names: The fields whose values are told.
    """
    values = " and ".join(
        f"`{name}={shown(getattr(instance, name))}`" for name in names
    )
    return SettingError(
        type(instance).__name__, f"{rule}. Received: {values}", names
    )


def create(
    settings_class: type[T],
    values: Mapping[str, Any],
    sources: str | Mapping[str, str],
    *,
    written: bool = False,
) -> T:
    """Makes an instance of values that came from somewhere.

    Args:
        settings_class: A dataclass of settings.
        values: Some or all of its fields.
        sources: Where they came from, for messages: one place for all (a
            file's path), or one for each key (a path, `--set`, a flag).
        written: Whether the values are texts, to be read by their fields'
            types.

    Raises:
        UserError: For an unknown, missing or wrong key.
    """
    fields = of(settings_class)
    if isinstance(sources, str):
        sources = dict.fromkeys([*values, *fields], sources)
    for key in values:
        if key not in fields:
            raise unknown_key(sources[key], key, list(fields))
    for name, field in fields.items():
        if field.default is REQUIRED and name not in values:
            source = sources.get(name, settings_class.__name__)
            raise UserError(f"{source}: `{name}` is missing: add it")
    given = dict(values)
    if written:
        for key, text in values.items():
            try:
                given[key] = fields[key].read(text)
            except ValueError as error:
                raise UserError(f"{sources[key]}: {error}") from None
    try:
        return settings_class(**given)
    except SettingError as error:
        places = {sources[name]: None for name in error.names if name in given}
        if not places:
            raise
        raise UserError(f"{' and '.join(places)}: {error.problem}") from None


def _plain(number: float) -> str:
    if isinstance(number, int):
        return f"{number:,}"
    return f"{number:g}".replace("e-0", "e-").replace("e+0", "e")


def spelled(value: Any) -> str:
    """Returns a field's value, or default, as a recipe spells it."""
    if value is REQUIRED:
        return "(none)"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, tuple):
        return f"[{', '.join(value)}]"
    return _plain(value) if isinstance(value, float) else str(value)
