"""Cuts Chinese text into sentences: one per line, nothing added or lost.

    他说：“你好！我是小明。”然后走了。《怎么办？》值３．５元……真的！
    他说：“你好！ | 我是小明。” | 然后走了。 | 《怎么办？》值３．５元…… | 真的！

A sentence ends behind 。！？；or …… , with the quotes and brackets that close
there, unless a comma or the like goes on. Nothing is cut within 《 》 or within
a number. The full stop ．of mathematical texts ends a sentence too, but not
behind the number of a list (１．), in a name of a file or in A．.
"""

import re

_LETTER = "A-Za-zＡ-Ｚａ-ｚ"
_DIGIT = "0-9０-９"
_MARKS = "。！？；｡‼⁇⁈⁉"
# Quotes and brackets that close behind the end of a sentence.
_CLOSING = '”’」』）】》〉〕］〗｝")\\]}'
# Behind a space, too: what a straight quote does there is open.
_SURELY_CLOSING = _CLOSING.replace('"', "")
# Each pattern looks back at the first character, which `_PATTERN` reads: a
# set of characters at its beginning is what makes the search fast.
_TITLE = "(?<=《)(?:[^《》\\n]|《[^《》\\n]*》){0,80}》"
_ENDS = "|".join(
    (
        f"(?<=[{_MARKS}])",
        # Ellipses; not those of 1……9.
        f"(?<=…)(?<![{_DIGIT}…]…)…++",
        f"(?<=…)…++(?![{_DIGIT}])",
        # ASCII marks behind Chinese text; `a != b` and `?q=1` are none.
        "(?<=[\u3400-\u9fff。！？”’」』）】》…][!?])[!?]*+(?!=)",
        # The full stop of mathematical texts.
        f"(?<=．)(?<![{_DIGIT}]．)(?<!\\b[{_LETTER}]．)"
        f"(?:(?<![{_LETTER}]．)|(?![{_LETTER}]))",
    )
)
_PATTERN = re.compile(
    f"[《{_MARKS}…!?．]"
    f"(?:{_TITLE}|(?:{_ENDS})(?:[{_MARKS}．]|……++|[!?]++(?!=))*+"
    f"(?P<closing>[{_CLOSING}]*+(?:[^\\S\\n]++[{_SURELY_CLOSING}]++)*+)"
    # Something follows on the line, and it is not the rest of the sentence.
    "(?P<end>(?![，、。！？；：…,;:])(?=[^\\S\\n]*\\S)))"
)
# Besides CR alone, what other programs end lines and pages with.
OTHER_LINE_ENDS = "\x0b\x0c\x85\u2028\u2029"
_LINE_END = re.compile(f"\r(?!\n)|[{OTHER_LINE_ENDS}]")


def split_sentences(text: str) -> str:
    """Puts every sentence on a line of its own.

    Args:
        text: Of any number of lines; LF ends a line.

    Returns:
        The text with line feeds put in, and with other line ends turned into
        line feeds.
    """
    text = _LINE_END.sub("\n", text)
    return _PATTERN.sub(_with_line_feed, text)


def _with_line_feed(found: re.Match) -> str:
    if found["end"] is None:  # a title
        return found[0]
    text, end = found.string, found.end("closing")
    before = text[found.start() - 1 : found.start()]
    if found[0].strip("…") == "" and before == text[end]:
        return found[0]  # a stutter: 我……我
    closing = found["closing"]
    if '"' in closing:
        # A straight quote closes only if one is open on this line.
        place = found.start("closing")
        begin = text.rfind("\n", 0, place) + 1
        is_open = text.count('"', begin, place) % 2 == 1
        for mark in closing:
            if mark == '"' and not is_open:
                end = place
                break
            is_open &= mark != '"'
            place += 1
    length = end - found.start()
    return f"{found[0][:length]}\n{found[0][length:]}"
