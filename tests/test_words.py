"""Word spans: by jieba on text, beside untouched tokens."""

import functools
import random
import time

import numpy as np
import pytest

from albert_tf2 import Tokenizer, UserError, Vocabulary
from albert_tf2.data import terms as terms_module
from albert_tf2.data import words
from albert_tf2.text.bulk_tokenization import BulkTokenizer
from albert_tf2.text.text_settings import TextSettings

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


@pytest.mark.parametrize("name", ["jieba", "rjieba"])
def test_the_segmenter_gets_whole_lines(bulk, monkeypatch, name):
    if name == "rjieba":
        pytest.importorskip("rjieba")
    text = "技术培训\r\n使用语言模型，技术培训\n\n云计算" * 3
    segmenter = words.Segmenter(name)
    expected = words_of(text, segmenter, bulk)
    monkeypatch.setattr(words, "STRETCH", 1)
    assert [*words._stretches("\n\n一二\n三")] == ["\n\n", "一二\n", "三"]
    assert words_of(text, segmenter, bulk) == expected


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
    terms = terms_module.read_terms(str(path))
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
    with pytest.raises(UserError, match="does not exist"):
        terms_module.read_terms(str(tmp_path / "absent"))
    with pytest.raises(UserError, match="one of rjieba, jieba, none"):
        words.Segmenter("hanlp")
    with pytest.raises(UserError, match="needs a segmenter"):
        words.Segmenter("none", [("云计算", None)])


LINES = """云计算 5
李小福 2 nr
创新办 3 i
easy_install 3 eng
好用 300
韩玉赏鉴 3 nz
八一双鹿 3 nz
台中
凱特琳 nz
Edu Trust认证 2000
奥迪 A4L
好 词 n
一 二 3 四
Windows 10 20
Windows 10
  前后有空格  7
带\t制表符
K歌 a"""


def test_dictionaries_are_read_as_jieba_reads_them(tmp_path):
    import jieba

    path = tmp_path / "terms.txt"
    path.write_text(f"\ufeff{LINES}\n\n", "utf-8")
    found = terms_module.read_terms(str(path))
    assert ("Edu Trust认证", 2000) in found
    assert ("奥迪 A4L", None) in found and ("一 二 3 四", None) in found
    expected = []
    for line in LINES.split("\n"):
        term, frequency, _ = jieba.re_userdict.match(line.strip()).groups()
        expected.append((term, int(frequency) if frequency else None))
    assert found == expected


# Of medicine, shops and computers; those below jieba never sees whole.
TERMS = """Ⅱ型糖尿病 α-干扰素 β受体阻滞剂 卡介苗(BCG) HER-2/neu 50℃水浴
维生素B₁₂ ＡＰＰ下载 宝马(进口) γ-氨基丁酸 Ca²⁺通道 “双11”大促 二〇二四年
3.5″软盘 ①号楼 5′-核苷酸 Na⁺/K⁺泵 T恤・短袖 café拿铁 ㎡单价 №5香水 𠮷野家
龘䶮科技 ㈱东芝 COVID-19 5-羟色胺 C++ 3D打印 p53基因 卡拉OK AT&T No.1 Вода水
ｍＲＮＡ疫苗 ℃/min""".split()
TERMS += ["Windows 10", "Edu Trust认证", "奥迪 A4L", "维生素 B₁₂ 片", "a b c"]


@pytest.mark.parametrize("name", ["jieba", "rjieba"])
@pytest.mark.parametrize(
    "around", ["{}", "使用{}的人。", "({})，", "看 {} 吧", "“{}”", "一{}一{}。"]
)
def test_a_term_is_one_word_whatever_it_holds(shared_words, name, around):
    if name == "rjieba":
        pytest.importorskip("rjieba")
    segmenter, bulk = shared_words(name)
    for term in TERMS:
        text = around.replace("{}", term)
        tokens = bulk.tokenize(text)
        starts = segmenter.word_starts(text, tokens)
        begin = -1
        for _ in range(around.count("{}")):
            begin = text.index(term, begin + 1)
            first, last = np.searchsorted(
                tokens.starts, [begin, begin + len(term)]
            )
            assert last > first + 1, term
            assert starts[first], (term, text)
            assert not starts[first + 1 : last].any(), (term, text)
            assert starts[last : last + 1].all(), (term, text)


@pytest.fixture(scope="module")
def shared_words():
    """Segmenters that know TERMS, and a tokenizer of their characters."""
    tokens = sorted(set("".join(TERMS).lower()) - {" "})
    tokens += [f"##{token}" for token in tokens]
    tokens = [*"[PAD] [UNK] [CLS] [SEP] [MASK]".split(), *tokens]
    vocabulary = Vocabulary(tokens)
    bulk = BulkTokenizer(Tokenizer(vocabulary, TextSettings()))

    @functools.cache
    def load(name):
        return words.Segmenter(name, [(t, None) for t in TERMS]), bulk

    return load


@pytest.mark.parametrize(
    "text, expected",
    [
        # Not within other words.
        ("Windows 100", "|windows |10 ##0"),
        ("xWindows 10", "|x ##windows |10"),
        ("Windows 10.5", "|windows 10 |. |5"),
        ("Windows\u200b 10", "|windows |10"),  # not the same characters
        # The longest of those that begin first.
        ("α-β受体", "|α - β |受 体"),
        # Words that reach into a term end before it.
        ("糖尿病α-β", "|糖 尿 病 |α - β"),
    ],
)
def test_terms_and_their_neighbours(text, expected):
    pytest.importorskip("rjieba")
    tokens = "windows x ##windows 10 ##0 . 5 α - β 受 体 糖 尿 病".split()
    vocabulary = Vocabulary("[PAD] [UNK] [CLS] [SEP] [MASK]".split() + tokens)
    bulk = BulkTokenizer(Tokenizer(vocabulary, TextSettings()))
    terms = [(t, None) for t in ("Windows 10", "α-", "α-β", "-β受")]
    segmenter = words.Segmenter("rjieba", terms)
    assert words_of(text, segmenter, bulk) == expected


@pytest.mark.parametrize("name", ["jieba", "rjieba"])
def test_the_frequency_of_a_term_counts(bulk, name):
    if name == "rjieba":
        pytest.importorskip("rjieba")
    rare = words.Segmenter(name, [("使用", 1), ("我使", 1)])
    often = words.Segmenter(name, [("我使", 20_000_000)])
    assert words_of("我使用", words.Segmenter(name), bulk) == "|我 |使 用"
    assert words_of("我使用", rare, bulk) == "|我 |使 |用"
    assert words_of("我使用", often, bulk) == "|我 使 |用"


def test_folded_texts_hold_folded_terms(bulk):
    segmenter = words.Segmenter("jieba", [("ｏｋ—买", None)], fold=True)
    assert words_of("卡ok-买", segmenter, bulk) == "|卡 |ok [UNK] 买"
    plain = words.Segmenter("jieba", [("ｏｋ—买", None)])
    assert words_of("卡ok-买", plain, bulk) == "|卡 |ok |[UNK] |买"


def test_a_term_within_a_word_that_the_segmenter_prefers(bulk):
    """T恤衫 is a word of its own, of which T恤 is no more than a part."""
    pytest.importorskip("rjieba")
    segmenter = words.Segmenter("rjieba", [("T恤", 1)])
    assert words_of("T恤衫", segmenter, bulk) == "|t |恤 [UNK]"
    assert words_of("T恤", segmenter, bulk) == "|t 恤"


def test_terms_that_can_never_be_a_word_are_named(bulk):
    terms = [
        ("云计算", None), ("卡\t拉", None), ("\u200b\u200b", None),
        ("使用" * 9, None), ("使用", 1), ("买 恤", None), ("我", None),
        ("Windows", 10), ("Linux", None), ("歼", 20), ("云计算机", 20),
    ]  # fmt: skip
    segmenter = words.Segmenter("jieba", terms)
    found = words.without_effect(segmenter, bulk, terms, max_tokens=15)
    assert found == {
        "卡\t拉": "it holds a tab: blanks divide the columns",
        "\u200b\u200b": "it has no token",
        "使用" * 9: "it has 18 tokens, more than a pair",
        "使用": "its frequency 1 is too low",
        "Windows": "it is one word anyway; if the 10 is part of it, write "
        "'Windows 10 1'",
        "歼": "it is one word anyway; if the 20 is part of it, write '歼 20 1'",
    }


def test_finding_terms_is_quick(shared):
    """Quicker than looking at each character, however many terms."""

    def least(act):
        times = []
        for _ in range(5):
            begin = time.process_time()
            act()
            times.append(time.process_time() - begin)
        return min(times)

    rng = random.Random(7)
    path = shared / "datasets" / "corpus" / "tech_lctt.txt"
    text = path.read_text("utf-8")[:700_000]  # 1.7 MB
    characters = sorted(set(text))
    many = [
        "".join(rng.choices(characters, k=rng.randrange(2, 9)))
        for _ in range(20_000)
    ]
    mixed = [term for term in many if not terms_module.is_joined(term)]
    one_look = least(lambda: sum(1 for _ in text))
    for terms in (TERMS, mixed + TERMS):
        finder = terms_module.TermFinder(terms)
        ratio = least(lambda finder=finder: finder.find(text)) / one_look
        assert ratio < 1, ratio


def test_every_place_of_a_term_is_found():
    rng = random.Random(3)
    alphabet = "αB1 药-"
    for _ in range(300):
        text = "".join(rng.choices(alphabet, k=40))
        terms = {
            "".join(rng.choices(alphabet, k=rng.randrange(2, 5)))
            for _ in range(5)
        }
        found = terms_module.TermFinder(sorted(terms)).find(text)
        expected = [
            (start, start + len(term), term)
            for start in range(len(text))
            for term in sorted(terms, key=len, reverse=True)
            if text.startswith(term, start)
        ]
        assert [tuple(match) for match in found] == expected


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
