"""Reads recipes: `key: value` lines of YAML, and `--set key=value`.

YAML because a recipe needs comments (command, hardware, expected time and
loss). Of YAML a recipe may use what a flat list of keys needs: comments,
quotes, a text per key, or a list of texts. Everything else is refused before
it costs anything: references, which can multiply a few hundred bytes into
gigabytes, tags, which name code, nested values, a key that stands twice.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from albert_tf2 import paths, settings
from albert_tf2.errors import UserError, cut, unknown_key

# A recipe is a page long; this leaves room for thousands of labels.
MAX_BYTES = 100_000
NULLS = ("", "~", "null", "Null", "NULL")
# A sign of its own, such as a delimiter, whatever it begins in YAML.
_SIGN = re.compile(r"[^\w\s\"'\[\]{}~]{1,2}")
T = TypeVar("T")
# What a key holds: null, a text, or a list of texts; its field's type decides
# what a text means.
Written = str | list[str] | None


def load_recipe(
    recipe_class: type[T],
    path: paths.PathLike | None,
    overrides: Sequence[str] = (),
    *,
    flags: Mapping[str, tuple[str, Any]] | None = None,
) -> T:
    """Reads a recipe and applies overrides, typed and strictly.

    Args:
        recipe_class: `PretrainRecipe` or another class of `settings`.
        path: A YAML file; None means the defaults alone.
        overrides: `key=value` texts of `--set`, the value as in the file; of
            several for one key the last counts.
        flags: Values of flags of their own: key -> (the flag's name, the
            value as it was written, None if it was not given).

    Raises:
        UserError: For a file that cannot be read, an unknown key, a wrong
            value.
    """
    values: dict[str, Written] = {}
    sources: dict[str, str] = {}
    if path is not None:
        text = paths.read_text(path, most=MAX_BYTES)
        values = _Reader(text, paths.shown(path)).keys()
        sources = dict.fromkeys(values, paths.shown(path))
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise UserError(
                f"--set must be key=value. Received: `--set {cut(override)}`"
            )
        if key not in settings.of(recipe_class):
            raise unknown_key("--set", key, list(settings.of(recipe_class)))
        source = f"--set: `{key}={cut(text)}`"
        kind = settings.of(recipe_class)[key].kind
        if kind is str and _SIGN.fullmatch(text):
            values[key] = text
        else:
            values[key] = _Reader(text, source, name_lines=False).value(key)
        sources[key] = "--set"
    for key, (flag, value) in (flags or {}).items():
        if value is not None:
            values[key], sources[key] = str(value), flag
    return settings.create(recipe_class, values, sources, written=True)


class _Reader:
    """Reads YAML event by event: nothing is built but keys and texts."""

    def __init__(self, text: str, source: str, *, name_lines: bool = True):
        """Starts to read.

        Args:
            text: YAML.
            source: Where it stands, for messages.
            name_lines: Whether messages name the line too.
        """
        self._source = source
        self._name_lines = name_lines
        self._events = self._parse(text)

    def keys(self) -> dict[str, Written]:
        """Reads `key: value` lines."""
        import yaml

        event = next(self._events)
        if self._is_null(event):  # nothing but comments
            self._end(event)
            return {}
        if not isinstance(event, yaml.MappingStartEvent):
            raise self._refusal(event, "must hold `key: value` lines")
        values: dict[str, Written] = {}
        lines: dict[str, int] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                raise self._refusal(event, "a key must be one word")
            key, shown_key = event.value, cut(event.value)
            if key in values:
                raise self._refusal(
                    event,
                    f"`{shown_key}` stands in line {lines[key]} already: "
                    "keep one of them",
                )
            lines[key] = _line(event.start_mark)
            values[key] = self._value(next(self._events), shown_key)
        self._end(event)
        return values

    def value(self, key: str) -> Written:
        """Reads one value."""
        event = next(self._events)
        value = self._value(event, key)
        self._end(event)
        return value

    def _value(self, event: Any, key: str) -> Written:
        import yaml

        if self._is_null(event):
            return None
        if isinstance(event, yaml.ScalarEvent):
            return event.value
        texts = []
        if isinstance(event, yaml.SequenceStartEvent):
            while isinstance(event := next(self._events), yaml.ScalarEvent):
                texts.append(event.value)
        if not isinstance(event, yaml.SequenceEndEvent):
            raise self._refusal(
                event, f"`{key}` must be one value, or a list of texts"
            )
        return texts

    def _end(self, event: Any) -> None:
        """Refuses what follows the last event that was read."""
        if not self._is_end(event):
            event = next(self._events)
        if not self._is_end(event):
            raise self._refusal(event, "must be one document: remove the rest")

    def _is_end(self, event: Any) -> bool:
        import yaml

        return isinstance(event, yaml.StreamEndEvent)

    def _is_null(self, event: Any) -> bool:
        import yaml

        plain = isinstance(event, yaml.ScalarEvent) and event.style is None
        return self._is_end(event) or (plain and event.value in NULLS)

    def _parse(self, text: str) -> Iterator[Any]:
        """Yields the events of the first document, and of what follows."""
        import yaml

        marks = [yaml.StreamStartEvent, yaml.DocumentStartEvent]
        try:
            for event in yaml.parse(text, Loader=yaml.BaseLoader):
                if isinstance(event, yaml.AliasEvent) or getattr(
                    event, "anchor", None
                ):
                    raise self._refusal(
                        event, "references (& and *) have no place here"
                    )
                if getattr(event, "tag", None):
                    raise self._refusal(event, "tags (!) have no place here")
                if marks and isinstance(event, marks[0]):
                    del marks[0]
                elif not isinstance(event, yaml.DocumentEndEvent):
                    yield event
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            problem = getattr(error, "problem", None) or str(error)
            raise self._refusal(
                None if mark is None else mark,
                f"not valid YAML ({cut(problem.splitlines()[0])})",
            ) from None

    def _refusal(self, where: Any, reason: str) -> UserError:
        """Returns an error at an event or a mark of the parser's."""
        mark = getattr(where, "start_mark", where)
        line = ""
        if self._name_lines and mark is not None:
            line = f", line {_line(mark)}"
        return UserError(f"{self._source}{line}: {reason}")


def _line(mark: Any) -> int:
    return mark.line + 1  # the parser counts from 0
