"""The bulk tokenizer against the exact one, line by line."""

import itertools
import random

import numpy as np

from albert_tf2 import Tokenizer, Vocabulary
from albert_tf2.text.bulk_tokenization import BulkTokenizer
from albert_tf2.text.text_settings import TextSettings
from albert_tf2.text.tokenization import is_chinese

VOCABULARY = Vocabulary(
    "[PAD] [UNK] [CLS] [SEP] [MASK] 中 国 ， . ' a ##a b ##b σ ##ς ##σ é e "
    'ᄀ ##ᅡ 1 ##1 ` ; Σ " -'.split()
)


def assert_same(bulk, tokenizer, text):
    ids, starts, pieces, chinese = [], [], [], []
    position = 0
    for line in text.split("\n"):
        tokens, line_ids, offsets = tokenizer.tokenize(line)
        ids += line_ids
        starts += [position + start for start, _ in offsets]
        pieces += [token.startswith("##") for token in tokens]
        chinese += [is_chinese(line[start]) for start, _ in offsets]
        position += len(line) + 1
    result = bulk.tokenize(text)
    np.testing.assert_array_equal(result.ids, ids)
    np.testing.assert_array_equal(result.starts, starts)
    np.testing.assert_array_equal(result.pieces, pieces)
    np.testing.assert_array_equal(result.chinese, chinese)


def test_same_tokens_on_random_text():
    # Every kind of trouble: accents, sigma, marks that NFD reorders,
    # Hangul, compatibility forms, control characters, lone surrogates.
    trouble = "ab1 .'\n\n中国，ΣσΑé\u0301\u0327\u1d165가\u302e\u302f\u037e"
    trouble += "\u1fef\u226e\x00\ufffd\u200b\u2028\u3000\ud800\U0001d16d"
    trouble += "\U0001f600\U00020000\U0002f800\uf900ＡİÉ“’—…１"
    rng = random.Random(7)
    for lower, fold in itertools.product((True, False), repeat=2):
        settings = TextSettings(do_lower_case=lower, normalize=fold)
        tokenizer = Tokenizer(VOCABULARY, settings)
        bulk = BulkTokenizer(tokenizer)
        for _ in range(3000):
            text = "".join(rng.choices(trouble, k=rng.randrange(40)))
            assert_same(bulk, tokenizer, text)


def test_same_tokens_on_real_text(shared, shared_vocab):
    tokenizer = Tokenizer(shared_vocab)
    path = shared / "datasets" / "corpus" / "small_mixed.txt"
    assert_same(
        BulkTokenizer(tokenizer), tokenizer, path.read_text(encoding="utf-8")
    )


def test_forgets_runs_when_there_are_too_many(monkeypatch):
    monkeypatch.setattr(
        "albert_tf2.text.bulk_tokenization.MAX_REMEMBERED_TOKENS", 5
    )
    tokenizer = Tokenizer(VOCABULARY)
    bulk = BulkTokenizer(tokenizer)
    for text in (
        "a b aa bb ab",
        "ba ab",
        "abab ab",
        "a b",
        "Σ " * 300,
        "",
        "a",
    ):
        assert_same(bulk, tokenizer, text)
        assert len(bulk._runs) <= 5
