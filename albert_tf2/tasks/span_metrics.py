"""Exact match and F1 of CMRC 2018, by the rules of its official evaluation.

Both sides are lower-cased and stripped; the signs in `SIGNS` do not count.
F1 is taken over segments, a Chinese character or a Latin word each, from the
longest common run of segments, not from the bag of them: an answer with the
right characters scattered through it scores low.
"""

import re
from collections.abc import Sequence

from albert_tf2.tasks import treebank

# The official list holds "……" as one entry, which no single character
# equals: the ellipsis counts as text.
SIGNS = frozenset("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
_CHINESE = re.compile("[\u4e00-\u9fa5]")


def segments(text: str) -> list[str]:
    """Cuts an answer into segments, without the signs.

    >>> segments("《CCTV-5》的3D电影")
    ['cctv5', '的', '3d', '电', '影']
    """
    found: list[str] = []
    run = ""
    for character in text.lower().strip():
        if character in SIGNS:
            continue
        if _CHINESE.match(character):
            found += treebank.words(run)
            run = ""
            found.append(character)
        else:
            run += character
    return found + treebank.words(run)


def longest_common_run(a: Sequence[str], b: Sequence[str]) -> int:
    """Returns the length of the longest contiguous run in both."""
    longest = 0
    ends = [0] * (len(b) + 1)  # lengths of runs that end at (i, j)
    for x in a:
        ends = [0] + [ends[j] + 1 if x == y else 0 for j, y in enumerate(b)]
        longest = max(longest, max(ends))
    return longest


def f1(answers: Sequence[str], prediction: str) -> float:
    """Returns the best F1 against any of the reference answers."""
    predicted = segments(prediction)
    best = 0.0
    for answer in answers:
        gold = segments(answer)
        common = longest_common_run(gold, predicted)
        if common:
            best = max(best, 2 * common / (len(gold) + len(predicted)))
    return best


def exact_match(answers: Sequence[str], prediction: str) -> float:
    """Returns 1.0 if the prediction equals a reference answer."""

    def plain(text):
        return "".join(c for c in text.lower().strip() if c not in SIGNS)

    return float(any(plain(a) == plain(prediction) for a in answers))


def figures(pairs: Sequence[tuple[Sequence[str], str]]) -> dict[str, float]:
    """Returns the figures of (reference answers, prediction) pairs.

    `f1`, `em` and their `average` are the official evaluation's, as shares.
    A question whose text holds no answer, which CMRC does not have, counts as
    in SQuAD 2.0: 1 for answering "", else 0; `answerable_f1` and
    `unanswerable_accuracy` then tell the two apart.
    """
    if not pairs:
        return {}
    f1s = [
        f1(answers, prediction) if answers else float(not prediction)
        for answers, prediction in pairs
    ]
    matches = [
        exact_match(answers, prediction) if answers else float(not prediction)
        for answers, prediction in pairs
    ]
    mean_f1, em = sum(f1s) / len(pairs), sum(matches) / len(pairs)
    found = {"f1": mean_f1, "em": em, "average": (mean_f1 + em) / 2}
    has = [score for score, pair in zip(f1s, pairs, strict=True) if pair[0]]
    has_not = [
        score for score, pair in zip(f1s, pairs, strict=True) if not pair[0]
    ]
    if has_not:
        if has:
            found["answerable_f1"] = sum(has) / len(has)
        found["unanswerable_accuracy"] = sum(has_not) / len(has_not)
    return {**found, "rows": len(pairs)}
