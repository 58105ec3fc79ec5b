"""Exact match and F1 of CMRC 2018, by the rules of its official evaluation.

Both sides are lower-cased and stripped; the signs in `SIGNS` do not count.
F1 is taken over segments, a Chinese character or a Latin token each, from the
longest common run of segments, not from the bag of them: an answer with the
right characters scattered through it scores low.
"""

import re
from collections.abc import Sequence

# The official list holds "……" as one entry, which no single character
# equals: the ellipsis counts as text.
SIGNS = frozenset("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
_CHINESE = re.compile("[\u4e00-\u9fa5]")
# The official evaluation cuts Latin runs by the Treebank rules; these are the
# ones that matter in answers: numbers stay whole, other signs stand alone.
_LATIN = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+|\d+|\S")


def segments(text: str) -> list[str]:
    """Cuts an answer into segments, without the signs."""
    found: list[str] = []
    run = ""
    for character in text.lower().strip():
        if character in SIGNS:
            continue
        if _CHINESE.match(character):
            found += _LATIN.findall(run)
            run = ""
            found.append(character)
        else:
            run += character
    return found + _LATIN.findall(run)


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
