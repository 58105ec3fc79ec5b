"""What callers pass as texts: lists of strings, or one string alone."""

from collections.abc import Iterable
from typing import Any

from albert_tf2.errors import UserError, shown


def as_texts(texts: str | Iterable[str]) -> list[str]:
    """Returns a list; a string is one text, not its characters."""
    found = [texts] if isinstance(texts, str) else list(texts)
    for text in found:
        if not isinstance(text, str):
            raise UserError(f"a text must be a string. Received: {shown(text)}")
    return found


def as_tuple(values: Any, names: str) -> tuple[Any, ...]:
    """Returns the parts of one question.

    Args:
        values: What stands in the caller's list.
        names: The parts, for the message: "question, text".
    """
    count = names.count(",") + 1
    if isinstance(values, str) or len(values) != count:
        raise UserError(f"expected ({names}). Received: {shown(values)}")
    return tuple(values)
