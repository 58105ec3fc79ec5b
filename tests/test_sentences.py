"""Sentences: cut where Chinese ends them, with nothing added or lost."""

import re

import hypothesis
import pytest
from hypothesis import strategies as st

from albert_tf2.data.sentences import split_sentences


@pytest.mark.parametrize(
    "expected",
    [
        "他来了。|她走了！|真的？|好；|再见",
        # Quotes and brackets close with their sentence.
        "他说：“你好！|我是小明。”|然后走了。",
        "「走吧。」|他说。|『好！』|（见下图。）|完。",
        "“好！”，他说。|“走吧？”：她问。",
        "他说：“真的吗？！”|我笑了。",
        # Runs of marks.
        "什么？！|不！！！|唉……|算了。。。|好",
        "等等……”|他说。",
        # A stutter, and a range.
        "我……我不知道。|从1……9里选。",
        # Titles stay whole, also titles in titles.
        "看了《你好！李焕英》很感动。|好",
        "《怎么办？〈上〉》和《谁？《我！》的书》都好。|对",
        "《没有右边的书名号。|就当没有。",
        # Numbers and lists.
        "３．１４和2．5都是数。|对",
        "1．第一章 2．第二章",
        "A．北京 B．上海",
        # The full stop of mathematical texts.
        "设 x 为整数．|则结论成立．|证毕",
        "显示图片 cover．jpg 即可。|好",
        # ASCII marks behind Chinese; none in addresses and programs.
        "真的吗?|好!|走",
        "打开 http://a.cn/?q=1 再说。|若 a != b 则止",
        "你好!= 再见",
        # A straight quote closes only what is open.
        '他走了。|"你好。"|她说。',
        '"好。"|"走！"',
        # Nothing behind the last one; white space stays where it is.
        "完。",
        "一。|  二。|　三",
        "ｱ｡|ｲ",
    ],
)
def test_sentences(expected):
    text = expected.replace("|", "")
    assert split_sentences(text).split("\n") == expected.split("|")


def test_lines_stay_lines_and_other_ends_become_lines():
    assert split_sentences("甲。\n乙。丙\r\n丁。") == "甲。\n乙。\n丙\r\n丁。"
    assert split_sentences("甲\r乙\u2028丙\x85丁\x0c戊\x0b己\u2029庚") == (
        "甲\n乙\n丙\n丁\n戊\n己\n庚"
    )


texts = st.text(
    st.sampled_from('我你他好。！？；…．,，!?"”“》《』」）(1２aＢ \n：、=.\r'),
    max_size=60,
)


@hypothesis.given(texts)
def test_joining_the_pieces_gives_the_text(text):
    text = text.replace("\r", "")
    pieces = split_sentences(text)
    assert pieces.replace("\n", "") == text.replace("\n", "")
    # Cuts are put in; none is taken out.
    assert re.sub("[^\n]", "", pieces) >= re.sub("[^\n]", "", text)
    begin = 0
    for piece in pieces.split("\n")[:-1]:
        begin = text.index(piece, begin) + len(piece)
    # What is cut stays cut: nothing is left to do.
    for line in pieces.split("\n"):
        if not re.search('[《"…]', line):
            assert split_sentences(line) == line


@hypothesis.example("好． ）好")
@hypothesis.example("好。」 』好")
@hypothesis.given(texts)
def test_no_piece_is_empty_or_a_closing_quote(text):
    for line in text.replace("\r", "").split("\n"):
        pieces = split_sentences(line).split("\n")
        assert all(piece.strip() for piece in pieces[1:])
        assert not any(
            piece.lstrip()[:1] in "”』」》）" for piece in pieces[1:]
        )


CORPORA = ["laws.txt", "news_cctv.txt", "novels_pd.txt", "tech_lctt.txt",
           "history_modern.txt"]  # fmt: skip
END = re.compile('[。！？][”’」』）】》")]*$')


@pytest.mark.parametrize("name", CORPORA)
def test_real_text_is_cut_where_others_cut_it(shared, name):
    """The corpora are one sentence a line: joined and cut again."""
    text = (shared / "datasets" / "corpus" / name).read_text("utf-8")
    found = missed = 0
    for document in re.split("\n\n+", text[:1_500_000]):
        lines = [line for line in document.split("\n") if line]
        joined = "".join(lines)
        if re.search("[\r\x0b\x0c\x85\u2028\u2029]", joined):
            continue
        pieces = split_sentences(joined).split("\n")
        assert "".join(pieces) == joined
        cuts = {0}
        for piece in pieces:
            cuts.add(max(cuts) + len(piece))
        place = 0
        for line in lines[:-1]:
            place += len(line)
            if END.search(line):
                found += place in cuts
                missed += place not in cuts
    assert found > 5_000
    assert missed < found / 250, (found, missed)
