"""CMRC's figures against a copy of what the official program does.

The copy below is written from the program's documented behaviour, in Python
3, with `nltk` for the Latin words; without nltk the fixed cases alone run.
"""

import random
import re

import pytest

from albert_tf2.tasks import span_metrics, treebank

SIGNS = "-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』"


def official_segments(text, words):
    found, run = [], ""
    for character in text.lower().strip():
        if character in SIGNS:
            continue
        if re.search("[\u4e00-\u9fa5]", character):
            found += (words(run) if run else []) + [character]
            run = ""
        else:
            run += character
    return found + (words(run) if run else [])


def official_f1(answers, prediction, words):
    best = []
    for answer in answers:
        a, b = (official_segments(t, words) for t in (answer, prediction))
        table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
        longest = 0
        for i, x in enumerate(a):
            for j, y in enumerate(b):
                if x == y:
                    table[i + 1][j + 1] = table[i][j] + 1
                    longest = max(longest, table[i + 1][j + 1])
        precision = longest / len(b) if longest else 0.0
        recall = longest / len(a) if longest else 0.0
        total = precision + recall
        best.append(2 * precision * recall / total if total else 0.0)
    return max(best)


def official_em(answers, prediction):
    def plain(text):
        return "".join(c for c in text.lower().strip() if c not in SIGNS)

    return float(any(plain(a) == plain(prediction) for a in answers))


@pytest.mark.parametrize(
    "text, expected",
    [
        ("3D", ["3d"]),
        ("CCTV-5", ["cctv5"]),
        ("JPN6120GR型", ["jpn6120gr", "型"]),
        ("约3.5%的人", ["约", "3.5", "%", "的", "人"]),
        ("1,000元", ["1,000", "元"]),
        ("U.S. Army", ["u.s.", "army"]),
        ("Dr. Who? It's me.", ["dr.", "who", "?", "it", "'s", "me", "."]),
        ("第1. 第二", ["第", "1", ".", "第", "二"]),
        ("R&B (1998)", ["r", "&", "b", "(", "1998", ")"]),
        ('"Hi"……', ["``", "hi", "''", "……"]),
        ("do not. stop", ["do", "not", ".", "stop"]),
        ("a. b", ["a.", "b"]),
        ("", []),
    ],
)
def test_segments(text, expected):
    assert span_metrics.segments(text) == expected


def hostile(rng):
    """Draws a text of what answers are made of, and of what breaks rules."""
    pieces = [
        *"的年月日国人一二三四",
        *"abc XYZ 3D CCTV5 u.s. dr. inc. it's can't 1,000 3.5 10:30".split(),
        *"http://a.b e=mc2 c++ R&B (x) [y] “引” 《书》 ·,-–—……".split(),
        *"~ % $ # @ ! ? ; ' \" . , :".split(),
        *(" ", "  ", "　", "\t", "é", "ß", "😀", "Ａ", "㎡", "\u3007"),
    ]
    return "".join(
        rng.choice(pieces) for _ in range(rng.choice([0, 1, 2, 3, 5, 9]))
    )


def nltk_words():
    tokenizer = pytest.importorskip(
        "nltk.tokenize", reason="nltk is not installed"
    ).NLTKWordTokenizer()
    # Sentences are ours: nltk's own need a model that is downloaded.
    return lambda text: [
        word
        for part in treebank.sentences(text)
        for word in tokenizer.tokenize(part)
    ]


COUNTS = [1_000, pytest.param(10_000, marks=pytest.mark.large)]


@pytest.mark.parametrize("count", COUNTS)
def test_latin_words_against_nltk(count):
    words = nltk_words()
    rng = random.Random(0)
    signs = "ab1 2.,:;!?'\"()[]<>$%&#@`|{}*-—–’‘“”«»é\t"
    for _ in range(count):
        text = "".join(rng.choice(signs) for _ in range(rng.randint(1, 14)))
        assert treebank.words(text) == words(text), text


@pytest.mark.parametrize("count", COUNTS)
def test_figures_against_the_official_rules(count):
    words = nltk_words()
    rng = random.Random(1)
    for _ in range(count):
        answers = [hostile(rng) for _ in range(rng.choice([1, 2, 3]))]
        prediction = hostile(rng)
        if rng.random() < 0.5:  # a near miss
            prediction = rng.choice(answers) + rng.choice(["", "的", "x", "。"])
        assert span_metrics.f1(answers, prediction) == pytest.approx(
            official_f1(answers, prediction, words)
        ), (answers, prediction)
        assert span_metrics.exact_match(answers, prediction) == official_em(
            answers, prediction
        ), (answers, prediction)


def test_figures_of_answerable_and_other_questions():
    pairs = [(["足球"], "足球"), (["足球"], ""), ([], ""), ([], "足球")]
    figures = span_metrics.figures(pairs)
    assert figures == {
        **{"f1": 0.5, "em": 0.5, "average": 0.5},
        **{"answerable_f1": 0.5, "unanswerable_accuracy": 0.5, "rows": 4},
    }
    figures = span_metrics.figures(pairs[:2])
    assert "unanswerable_accuracy" not in figures and figures["rows"] == 2
    assert span_metrics.figures([]) == {}
