"""Sentences and documents in the tokens of a unit."""

import numpy as np
import pytest

from albert_tf2.data import reading
from albert_tf2.data.documents import documents_of_tokens
from albert_tf2.text.bulk_tokenization import BulkTokenizer
from albert_tf2.text.tokenization import Tokenizer, Vocabulary

BULK = BulkTokenizer(
    Tokenizer(
        Vocabulary([*"[PAD] [UNK] [CLS] [SEP] [MASK]".split(), *"甲乙丙。"])
    )
)


def found_in(text):
    found = documents_of_tokens(text, BULK.tokenize(text))
    lengths = [np.diff(ends).tolist() for ends in found.sentence_ends]
    return lengths, found.first_is_open, found.last_is_open


@pytest.mark.parametrize(
    "text, expected",
    [
        ("甲。\n乙\n\n丙。\n", ([[2, 1], [2]], True, True)),
        ("\n甲。\n乙\n\n", ([[2, 1]], False, False)),
        ("甲\n\n\n\n乙", ([[1], [1]], True, True)),
        # White space of any kind is a border; a line of control characters
        # has no tokens either, but stands within its document.
        ("甲\n \t\u3000\r\n乙\n", ([[1], [1]], True, True)),
        ("甲\n\x01\x7f\n乙\n", ([[1, 1]], True, True)),
        ("\x01\n甲\n\x01", ([[1]], True, True)),
        ("", ([], True, True)),
        ("\n", ([], False, False)),
        ("甲", ([[1]], True, True)),
    ],
)
def test_borders(text, expected):
    assert found_in(text) == expected


def test_other_tools_find_the_same_borders():
    for text in ("甲\n \u3000\n乙\n", "甲\n\x01\n乙\n", "\n\n甲\n\n\n乙"):
        lengths, *_ = found_in(text)
        assert len(list(reading.documents(text))) == len(lengths)
