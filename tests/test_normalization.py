"""The optional folding of typographic signs."""

import unicodedata

from albert_tf2 import Vocabulary
from albert_tf2.text.normalization import REPLACEMENTS, normalize


def test_folds_what_the_docstring_says():
    assert normalize("“Ａ１ｚ”——‘等等’…") == "\"A1z\"--'等等'..."
    unchanged = "，。！（）《》·你好 abc 123 é"
    assert normalize(unchanged) == unchanged
    assert normalize(normalize("“…”")) == normalize("“…”")


def test_letters_and_digits_agree_with_unicode():
    folded = {c: r for c, r in REPLACEMENTS.items() if ord(c) > 0xFF00}
    assert len(folded) == 62
    for character, replacement in folded.items():
        assert unicodedata.normalize("NFKC", character) == replacement


def test_signs_that_are_folded_are_unknown_to_the_vocabulary(shared_vocab):
    known = Vocabulary.load(shared_vocab).ids
    signs = [c for c in REPLACEMENTS if ord(c) < 0xFF00]
    assert not [c for c in signs if c in known]
    assert {"'", '"', "-", "."} <= set(known)
