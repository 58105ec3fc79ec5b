"""Labels in the cells of a user's table: one class, several, or a score.

    好                       one of some classes
    酒店,价格                 several, between separators, or a list
    3.5                      a score

A column that cannot be meant as asked is refused with the line to use.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from albert_tf2.errors import UserError
from albert_tf2.tasks.column_names import LABEL, TEXT_A
from albert_tf2.tasks.columns import (
    CLASS,
    SCORE,
    Columns,
    is_number,
    plain,
)
from albert_tf2.tasks.reading import BadRow

# What may stand between several labels of a cell, likeliest first; the last
# ones stand inside the names of single classes too.
SEPARATORS = (",", "，", ";", "；", "|", "、", "/", "#", " ")
_SURE_SEPARATORS = SEPARATORS[:6]


def class_of(cell: Any) -> str:
    """Returns a class as text; JSON and Parquet may hold a number."""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, (list, tuple, dict)):
        raise BadRow(
            f"a label must be one class. Received: {cell!r}; several are "
            "--task multi_label"
        )
    return plain(cell)


def several_labels(cells: Sequence[Any], separator: str) -> tuple[str, ...]:
    """Returns the labels of a row, sorted, each once; perhaps none."""
    found: set[str] = set()
    for cell in cells:
        if isinstance(cell, (list, tuple)):
            parts = [class_of(part) for part in cell]
        elif separator:
            parts = class_of(cell).split(separator)
        else:
            parts = [class_of(cell)]
        found |= {part.strip() for part in parts if part.strip()}
    return tuple(sorted(found))


def score_of(text: str) -> float:
    """Reads a finite number."""
    if not is_number(text):
        raise BadRow(f"a score must be a number. Received: {text!r}")
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise BadRow(f"a score must be finite. Received: {text!r}")
    return value


def find_separator(
    cells: Sequence[Any], among: Sequence[str] = SEPARATORS
) -> str:
    """Finds what stands between several labels of a cell; "" for nothing.

    The parts of cells that hold a separator must recur, as labels do:
    `酒店,价格`, `酒店,服务` and `价格,服务` have three parts in six places.
    """
    whole = {cell.strip() for cell in cells if isinstance(cell, str)} - {""}
    best, most = "", 0
    for separator in among:
        count = sum(separator in text for text in whole)
        parts = {p.strip() for text in whole for p in text.split(separator)}
        if count > most and len(parts - {""}) <= len(whole):
            best, most = separator, count
    return best


def refuse_strange(
    path: str,
    found: Columns,
    cells: Sequence[Any],
    *,
    label: str,
    separator: str,
) -> None:
    """Refuses labels that are texts, or of another kind than asked for.

    Args:
        path: The training file, for the message.
        found: Its columns.
        cells: The filled cells of its label.
        label: What the task takes: one class, several or a score.
        separator: Between several labels.

    Raises:
        UserError: With the line to use.
    """
    names = ", ".join(found.name(place) for place in found.places(LABEL))
    start = f"{path}: the label ({names})"
    if label == SCORE:
        _refuse_words(start, found, cells)
        return
    if label == CLASS:
        _refuse_lists(start, cells)
        values = list(map(plain, cells))
        _refuse_scores(start, values)
    else:
        values = [
            part for c in cells for part in several_labels([c], separator)
        ]
    _refuse_texts(start, found, values)
    if label == CLASS:
        _refuse_combinations(start, values)


def _refuse_words(start, found, cells) -> None:
    words = [text for text in map(plain, cells) if not is_number(text)]
    if 2 * len(words) > len(cells):
        raise UserError(
            f"{start} is no number in most rows (such as {words[0][:30]!r}); "
            f"{_other_columns(found)}"
        )


def _refuse_lists(start, cells) -> None:
    if any(isinstance(cell, (list, tuple)) for cell in cells):
        raise UserError(
            f"{start} is a list: for several labels in a row take --task "
            "multi_label"
        )


def _refuse_scores(start, values) -> None:
    different = set(values)
    if len(different) > 2 and all(map(is_number, different)):
        if not all(float(text).is_integer() for text in different):
            low, high = min(different, key=float), max(different, key=float)
            raise UserError(
                f"{start} holds {len(different)} numbers from {low} to {high}: "
                "for scores take --task regression; to have each number a "
                "class, name them: --set 'labels=[...]'"
            )


def _refuse_texts(start, found, values) -> None:
    counts = Counter(values)
    once = [text for text, count in counts.items() if count == 1]
    # One character is a label, however few rows there are.
    short = all(len(text) == 1 for text in counts)
    if 2 * len(once) > len(counts) and not short:
        raise UserError(
            f"{start} has {len(counts)} different values in {len(values)} "
            f"rows, most of them once (such as {once[0][:30]!r}): are they "
            f"texts? {_other_columns(found)}; or name the classes: --set "
            "'labels=[...]'"
        )


def _refuse_combinations(start, values) -> None:
    counts = Counter(values)
    separator = find_separator(list(counts), _SURE_SEPARATORS)
    if separator and len(counts) > 2:
        example = next(text for text in counts if separator in text)
        raise UserError(
            f"{start} holds several labels in a row, such as {example!r}: take "
            f"--task multi_label --set 'label_separator={separator}'; to have "
            "each combination a class, name them: --set 'labels=[...]'"
        )


def _other_columns(found: Columns) -> str:
    """Proposes the first text and the label the other way round."""
    swap = {TEXT_A: LABEL, LABEL: TEXT_A}
    roles = [swap.get(role, role) or "_" for role in found.roles]
    return f"name the columns, e.g. --set 'columns=[{','.join(roles)}]'"
