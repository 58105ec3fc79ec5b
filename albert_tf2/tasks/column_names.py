"""What people call the columns of their tables, in Chinese and English.

content,label              a text and its label
question,answer,label      a pair
title,content,类别          two parts of one text
"""

import re
from collections.abc import Sequence

ID, TEXT_A, TEXT_B, LABEL = ROLES = ("id", "text_a", "text_b", "label")

# All without case, spaces, "_", "-" and ".". Where a header holds several
# names for the label, the first of these is meant.
_SCORES = tuple(
    "score scores similarity rating star stars 分数 得分 评分 打分 星级 "
    "相似度".split()
)
_LABELS = tuple(
    "label labels labelid goldlabel gold 标签 标注 类别 类型 分类 target class "
    "classes classname labelname category categories cat sentiment emotion "
    "polarity intent topic tag tags isduplicate issimilar 情感 情感倾向 情绪 "
    "意图 主题 是否相似".split()
    + [*_SCORES, "y"]
)
_IDS = tuple("id idx index qid uid guid no 编号 序号 索引".split())
# One text; several of these are joined.
_TEXTS = frozenset(
    "text texts texta sentence sentences sentence1 content contents title "
    "headline body abstract document doc article news review reviews comment "
    "comments post message tweet query question utterance text1 文本 文字 句子 "
    "内容 正文 标题 摘要 新闻 文章 评论 评价 微博 留言 问题 问句 语句 描述 "
    "简介".split()
)
# Longer names end so: 微博中文内容, 情感标签.
_TEXT_ENDS = ("内容", "文本", "正文", "评论", "标题", "描述")
_LABEL_ENDS = ("标签", "类别", "分类", "情感", "评分", "得分", "分数")
# The two texts of a pair, in this order.
_PAIRS = (
    *(
        (f"{name}{one}", f"{name}{two}")
        for name in "text sentence sent question query q s 句子 文本 问题 "
        "问句".split()
        for one, two in ("ab", "12")
    ),
    *(
        (premise, hypothesis)
        for premise in ("premise", "前提")
        for hypothesis in ("hypothesis", "hypo", "假设")
    ),
    *(
        (question, answer)
        for question in ("question", "query", "问题", "问句")
        for answer in "answer reply response title document doc passage "
        "candidate 答案 回答 回复 标题".split()
    ),
)
_SECONDS = frozenset(second for _, second in _PAIRS)


def normal(name: str) -> str:
    """Returns a name as the lists above spell it.

    >>> normal("Text_A"), normal(' "Sentence 1"')
    ('texta', 'sentence1')
    """
    return re.sub(r"[\s_\-.\"']", "", name).lower()


def is_name(cell: str) -> bool:
    """Whether a cell is what people call a text or a label."""
    name = normal(cell)
    return _is_text(name) or _is_label(name) or name in _SECONDS


def is_id(cell: str) -> bool:
    """Whether a cell is what people call a row's number."""
    return normal(cell) in _IDS


def _is_text(name: str) -> bool:
    return name in _TEXTS or name.endswith(_TEXT_ENDS)


def _is_label(name: str) -> bool:
    return name in _LABELS or name.endswith(_LABEL_ENDS)


def roles_of(
    header: Sequence[str], *, prefer_scores: bool = False
) -> list[str]:
    """Returns what the names in a header mean; "" for what is no name.

    Args:
        header: The names.
        prefer_scores: Whether `score` is the label rather than `label`.

    >>> roles_of(["qid", "question1", "question2", "label"])
    ['id', 'text_a', 'text_b', 'label']
    """
    roles = [""] * len(header)
    names = [normal(name) for name in header]
    for pair in _PAIRS:
        if pair[0] in names and pair[1] in names:
            roles[names.index(pair[0])] = TEXT_A
            roles[names.index(pair[1])] = TEXT_B
            break
    else:
        for i, name in enumerate(names):
            if _is_text(name):
                roles[i] = TEXT_A
    labels = labels_in(header, prefer_scores=prefer_scores)
    if labels:
        roles[labels[0]] = LABEL
    for i, name in enumerate(names):
        if name in _IDS and not roles[i]:
            roles[i] = ID
            break
    return roles


def labels_in(header: Sequence[str], *, prefer_scores: bool) -> list[int]:
    """Returns the columns that may be the label, the likeliest first."""
    names = [normal(name) for name in header]
    order = (*_SCORES, *_LABELS) if prefer_scores else _LABELS

    def rank(place: int) -> int:
        name = names[place]
        return order.index(name) if name in order else len(order)

    return sorted(
        (i for i in range(len(names)) if _is_label(names[i])), key=rank
    )
