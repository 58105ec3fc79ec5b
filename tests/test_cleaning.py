"""HTML left-overs and repeated lines: counted, and taken out when asked."""

import re

import hypothesis
import pytest
from hypothesis import strategies as st

from albert_tf2.data import cleaning


@pytest.mark.parametrize(
    "text, plain, count",
    [
        ("你好&nbsp;世界", "你好 世界", 1),
        ("一句<br/>二句<BR>三句", "一句 二句 三句", 2),
        ('<p class="a">段落</p>', " 段落 ", 2),
        ("A &amp; B &lt;3 &#20320;&#x597d;", "A & B <3 你好", 4),
        ("&amp;nbsp;两次", " 两次", 1),
        ("前<!-- 注释 -->后", "前 后", 1),
        ("<img src='x.png' alt=\"图\"/>图", " 图", 1),
        # As WikiExtractor marks its pages.
        ('<doc id="3" url="" title="数学">\n数。\n</doc>\n', "数。\n", 2),
        # No HTML.
        ("AT&T; a<b 且 c>d", "AT&T; a<b 且 c>d", 0),
        ("《书》<作者>&；", "《书》<作者>&；", 0),
        ("if (a < p && b > q)", "if (a < p && b > q)", 0),
        # A line of tags alone vanishes, and divides no document.
        ("一句。\n<div>\n<br/>\n二句。\n", "一句。\n二句。\n", 2),
        ("一。\n\n&nbsp;\n二。", "一。\n\n二。", 1),
        ("一。&#10;&#10;二。", "一。  二。", 2),
    ],
)
def test_html(text, plain, count):
    assert cleaning.strip_html(text) == plain
    assert cleaning.count_html(text) == count


lines = st.lists(
    st.sampled_from(
        ["<br>", "&nbsp;", "一句话而已。", "", " ", "<p>段落</p>",
         "这一行有十几个字那么长了", "这一行也有十几个字那么长", "&#10;", "短"]
    ),
    max_size=14,
)  # fmt: skip


@hypothesis.given(lines)
def test_nothing_makes_or_removes_a_border(lines):
    text = "\n".join(lines)

    def documents(text):
        blocks = re.split(r"\n[^\S\n]*(?=\n|$)|^[^\S\n]*(?=\n|$)", text)
        return [b for b in blocks if cleaning.strip_html(b).strip()]

    before = documents(text)
    assert len(documents(cleaning.strip_html(text))) == len(before)
    kept = cleaning.drop_repeated_lines(text)
    assert len(documents(kept)) == len(before)
    assert cleaning.count_repeated_lines(kept) == 0
    dropped = len(text.split("\n")) - len(kept.split("\n"))
    assert dropped == cleaning.count_repeated_lines(text)


def test_long_lines_repeat_within_a_document():
    text = "这一行有十几个字那么长\n好。\n好。\n  这一行有十几个字那么长 \n尾\n"
    assert cleaning.count_repeated_lines(text) == 1
    assert cleaning.drop_repeated_lines(text) == (
        "这一行有十几个字那么长\n好。\n好。\n尾\n"
    )
    two = "这一行有十几个字那么长\n\n这一行有十几个字那么长\n"
    assert cleaning.count_repeated_lines(two) == 0
    assert cleaning.drop_repeated_lines(two) == two
