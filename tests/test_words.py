"""Word spans: by jieba on text, beside untouched tokens."""

import numpy as np
import pytest

from albert_tf2 import Tokenizer, UserError, Vocabulary
from albert_tf2.data import words
from albert_tf2.text.bulk_tokenization import BulkTokenizer

VOCABULARY = Vocabulary(
    "[PAD] [UNK] [CLS] [SEP] [MASK] 使 用 语 言 模 型 预 测 技 术 培 训 云 计 "
    "算 卡 拉 买 恤 al ##bert ok t ， 我".split()
)


@pytest.fixture(scope="module")
def bulk():
    return BulkTokenizer(Tokenizer(VOCABULARY))


def words_of(text, segmenter, bulk):
    tokens = bulk.tokenize(text)
    starts = segmenter.word_starts(text, tokens)
    spelled = [bulk.tokenizer.vocabulary.tokens[i] for i in tokens.ids]
    marked = [
        ("|" if s else "") + t for s, t in zip(starts, spelled, strict=True)
    ]
    return " ".join(marked)


@pytest.mark.parametrize("name", ["jieba", "rjieba"])
def test_words_are_spans_of_any_length(bulk, name):
    if name == "rjieba":
        pytest.importorskip("rjieba")
    segmenter = words.Segmenter(name)
    # 技术培训 has four characters: albert_zh stops at three.
    assert words_of("使用ALBERT语言模型，技术培训", segmenter, bulk) == (
        "|使 用 |al ##bert |语 言 |模 型 |， |技 术 培 训"
    )
    # White space ends a word, whatever the dictionary says.
    assert words_of("语 言", segmenter, bulk) == "|语 |言"
    assert words_of("", segmenter, bulk) == ""


def test_without_segmenter_a_word_is_its_pieces(bulk):
    assert words_of("使用ALBERT", words.Segmenter("none"), bulk) == (
        "|使 |用 |al ##bert"
    )


@pytest.mark.parametrize("name", ["jieba", "rjieba"])
def test_user_dictionary(bulk, tmp_path, name):
    if name == "rjieba":
        pytest.importorskip("rjieba")
    path = tmp_path / "terms.txt"
    path.write_text("云计算\n\n卡拉OK 1000 n\n语言模型 50\n", "utf-8-sig")
    terms = words.read_terms(str(path))
    assert terms == [("云计算", None), ("卡拉OK", 1000), ("语言模型", 50)]
    text = "使用云计算，卡拉OK语言模型"
    assert words_of(text, words.Segmenter(name, terms), bulk) == (
        "|使 用 |云 计 算 |， |卡 拉 ok |语 言 模 型"
    )
    # Terms stay with the segmenter that was given them.
    assert words_of(text, words.Segmenter(name), bulk) == (
        "|使 用 |云 |计 算 |， |卡 拉 |ok |语 言 |模 型"
    )


def test_bad_dictionaries_and_names(tmp_path):
    with pytest.raises(UserError, match="absent does not exist"):
        words.read_terms(str(tmp_path / "absent"))
    path = tmp_path / "terms.txt"
    path.write_text("好 词 n\n", "utf-8")
    with pytest.raises(UserError, match="line 1: '好 词 n'"):
        words.read_terms(str(path))
    with pytest.raises(UserError, match="one of rjieba, jieba, none"):
        words.Segmenter("hanlp")
    with pytest.raises(UserError, match="needs a segmenter"):
        words.Segmenter("none", [("云计算", None)])


def test_rjieba_cuts_as_jieba_where_it_is_used(shared, shared_vocab):
    """Why the fast segmenter is the default: the same words on real text."""
    pytest.importorskip("rjieba")
    bulk = BulkTokenizer(Tokenizer(shared_vocab))
    fast, reference = words.Segmenter("rjieba"), words.Segmenter("jieba")
    corpus = shared / "datasets" / "corpus"
    differences = joints = 0
    for path in sorted(corpus.glob("*.txt")):
        text = path.read_text(encoding="utf-8")[:200_000]
        tokens = bulk.tokenize(text)
        differences += np.sum(
            fast.word_starts(text, tokens)
            != reference.word_starts(text, tokens)
        )
        joints += np.sum(tokens.chinese[1:] & tokens.chinese[:-1])
    assert joints > 700_000
    assert differences <= joints / 500_000
