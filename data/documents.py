"""Finds the sentences and documents in the tokens of a unit."""

from typing import NamedTuple

import numpy as np

from albert_tf2.text.bulk_tokenization import BulkTokens

# What `str.strip` removes.
WHITE_SPACE = [code for code in range(0x3001) if chr(code).isspace()]


class Documents(NamedTuple):
    """The documents of a tokenized unit.

    Attributes:
        sentence_ends: For each document int64 [S + 1]: the token where it
            begins, and the tokens where its S sentences end.
        first_is_open: Whether no border stands before the first document.
        last_is_open: Whether no border stands after the last one.
    """

    sentence_ends: list[np.ndarray]
    first_is_open: bool
    last_is_open: bool


def documents_of_tokens(text: str, tokens: BulkTokens) -> Documents:
    """Finds the sentences and documents of a tokenized unit."""
    line_ends = np.append(tokens.line_ends, len(text))
    token_ends = np.searchsorted(tokens.starts, line_ends)  # [L]
    lengths = np.diff(token_ends, prepend=0)
    is_border = _borders(text, line_ends, lengths)
    if not text or text.endswith("\n"):
        is_border[-1] = False  # nothing stands behind the last line feed
    sentences = np.flatnonzero(lengths)
    document_of_line = np.cumsum(is_border)
    if not len(sentences):
        is_open = not is_border.any()
        return Documents([], is_open, is_open)
    first = np.flatnonzero(np.diff(document_of_line[sentences])) + 1
    found = []
    begin = 0
    for ends in np.split(token_ends[sentences], first):
        found.append(np.concatenate([[begin], ends]))
        begin = ends[-1]
    return Documents(
        found,
        first_is_open=bool(document_of_line[sentences[0]] == 0),
        last_is_open=bool(
            document_of_line[sentences[-1]] == document_of_line[-1]
        ),
    )


def _borders(
    text: str, line_ends: np.ndarray, tokens_of_line: np.ndarray
) -> np.ndarray:
    """Returns bool [L], whether a line holds nothing but white space.

    A line of control characters has no tokens either, but is no border.
    """
    lengths = np.diff(line_ends, prepend=-1) - 1
    borders = lengths == 0
    doubtful = np.flatnonzero((tokens_of_line == 0) & ~borders)
    if len(doubtful):
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
        solid = np.concatenate([[0], np.cumsum(~np.isin(codes, WHITE_SPACE))])
        ends = line_ends[doubtful]
        borders[doubtful] = solid[ends] == solid[ends - lengths[doubtful]]
    return borders
