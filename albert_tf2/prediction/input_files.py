"""Texts for the command line's `predict`: from arguments and files.

    花呗怎么还款<TAB>如何还花呗        a text per line, or a pair with a tab
    {"id": 7, "text": "花呗怎么还款"}   or JSON Lines, whose ids are kept

Every line is checked before a model is loaded, and read again when its turn
comes: a file is never held whole. Answer n belongs to line n. A blank line, or
a record whose texts are all blank, is answered by `null`; half of a pair is an
error.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from albert_tf2 import paths
from albert_tf2.errors import UserError, shown
from albert_tf2.prediction import litert_cache, litert_file
from albert_tf2.prediction.tuned_model import tuned_folder
from albert_tf2.tasks import base, column_names, reading
from albert_tf2.tasks.column_names import TEXT_A, TEXT_B
from albert_tf2.tasks.reading import BadRow

# Names for a text that is asked about.
_CONTEXT = ("context", "passage", "text", "paragraph")


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """What one answer is for.

    Attributes:
        entry_id: As the file has it, or the number of the text from 0.
        text: The text, or the first of a pair; None for a blank line.
        second: The second text of a pair.
    """

    entry_id: Any
    text: str | None
    second: str | None = None

    @property
    def asked(self) -> str | tuple[str, str]:
        """The text or the pair, as `Predictor` takes it."""
        assert self.text is not None, "blank lines are not asked"
        return self.text if self.second is None else (self.text, self.second)

    def shown(self, *names: str) -> dict[str, Any]:
        """The texts as an answer repeats them; two names for a pair."""
        if self.second is None:
            return {"text": self.text or ""}
        return dict(zip(names, (self.text, self.second), strict=True))


def description(model: str) -> dict[str, Any]:
    """Returns what `task.json` says of a fine-tuned model; {} for others."""
    if litert_cache.is_file(model):
        return litert_file.task_of(model)
    folder = tuned_folder(model)
    if folder is None:
        return {}
    return paths.read_json(paths.join(folder, base.TASK_FILE), dict)


def from_arguments(texts: Sequence[str], pairs: bool | None) -> list[Entry]:
    """Makes entries of the texts on a command line.

    Args:
        texts: The arguments. Two of them without a tab are a pair where
            pairs are wanted.
        pairs: Whether each entry must be a pair; None takes both.
    """
    if pairs and len(texts) == 2 and not any("\t" in text for text in texts):
        return [Entry(0, *texts)]
    return [
        entry(number, text, pairs, f"text {number + 1}")
        for number, text in enumerate(texts)
    ]


class FileEntries:
    """The entries of a file: iterating reads it, and no entry is kept."""

    def __init__(self, path: str, pairs: bool | None):
        """Checks every line. See `from_file`."""
        self._path, self._pairs = path, pairs
        self._count = sum(1 for _ in self._read())

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Entry]:
        count = 0
        for count, found in enumerate(self._read(), 1):
            if count > self._count:
                break
            yield found
        if count != self._count:
            raise UserError(
                f"{self._path} was changed while it was read: it had "
                f"{self._count:,} texts. Ask again"
            )

    def _read(self) -> Iterator[Entry]:
        path, pairs = self._path, self._pairs
        if path.endswith(".jsonl"):
            lines = enumerate(reading.json_lines(path))
            for number, (place, line) in lines:
                yield _json_entry(number, line, pairs, place)
            return
        for number, line in reading.numbered_lines(path):
            yield entry(number - 1, line, pairs, f"{path}, line {number}")


def from_file(path: str, pairs: bool | None) -> FileEntries:
    """Checks a file of a text or a pair per line, or of JSON Lines.

    Raises:
        UserError: Naming the line that is not as it must be.
    """
    entries = FileEntries(path, pairs)
    if not len(entries) and not path.endswith(".jsonl"):
        raise UserError(f"{path} is empty: give it a text per line")
    return entries


def entry(number: int, line: str, pairs: bool | None, place: str) -> Entry:
    """Makes an entry of a line, or says what is wrong with it."""
    _check_whole(line, place)
    if not line.strip():
        return Entry(number, None)
    text, tab, second = line.partition("\t")
    if pairs and not (text.strip() and second.strip()):
        raise UserError(
            f"{place} holds {shown(line)}: this model takes two texts with a "
            "tab between them"
        )
    if tab and pairs is False:
        raise UserError(
            f"{place} holds a tab, which stands between the texts of a pair: "
            f"this model takes single texts. Received: {shown(line)}"
        )
    return Entry(number, text, second) if tab else Entry(number, line)


def _json_entry(number: int, line: str, pairs, place: str) -> Entry:
    try:
        record = reading.json_object(line)
        first, second = _texts(record)
    except BadRow as error:
        raise UserError(f"{place}: {error}") from None
    name = next(filter(column_names.is_id, record), None)
    entry_id = number if name is None else record[name]
    for value in (first, second, entry_id):
        _check_whole(value, place)
    if not (first.strip() or (second or "").strip()):
        return Entry(entry_id, None)
    if pairs is False:
        second = None
    if pairs and not (first.strip() and (second or "").strip()):
        raise UserError(
            f"{place}: this model takes two texts, such as `text_a` and "
            "`text_b`"
        )
    return Entry(entry_id, first if first.strip() else None, second)


def _check_whole(text: Any, place: str) -> None:
    """Refuses what JSON or a terminal lets through and no file can hold."""
    try:
        str(text).encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(
            f"{place} holds half a character (a lone surrogate), or bytes "
            f"that are not UTF-8. Received: {shown(text)}"
        ) from None


def _texts(record: dict[str, Any]) -> tuple[str, str | None]:
    """Finds the texts of a record by its names, as training does."""
    context = next((record[n] for n in _CONTEXT if n in record), None)
    if "question" in record and context is not None:
        found = [[record["question"]], [context]]
    else:
        roles = column_names.roles_of(list(record))
        found = [
            [
                v
                for r, v in zip(roles, record.values(), strict=True)
                if r == role
            ]
            for role in (TEXT_A, TEXT_B)
        ]
    for text in (*found[0], *found[1]):
        if not isinstance(text, str):
            raise BadRow(f"a text must be a string. Received: {shown(text)}")
    if not found[0]:
        raise BadRow("holds no text: a field such as `text` or `text_a`")
    return " ".join(found[0]), found[1][0] if found[1] else None
