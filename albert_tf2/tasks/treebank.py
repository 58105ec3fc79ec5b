"""Latin words by the Penn Treebank's rules, as CMRC's evaluation cuts them.

    3d cctv5 3.5%            ->  3d / cctv5 / 3.5 / %
    it's (about) u.s. law.   ->  it / 's / ( / about / ) / u.s. / law / .

The official evaluation calls `nltk.word_tokenize` on lower-cased text: letters
and digits stay together, other signs stand alone, a period is cut from the
last word of a sentence and stays with abbreviations. The rules are Robert
MacIntyre's; how sentences end is Kiss and Strunk's (2006), without what their
model learned about single English words.
"""

import re

# Applied in this order; `\1` and the like are what stands between spaces.
_RULES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        # Opening quotes.
        ("([«“‘„]|`+)", r" \1 "),
        ('^"', "``"),
        ("(``)", r" \1 "),
        (r"([ ([{<])(\"|'')", r"\1 `` "),
        (r"(?<!\w)'(?!(?:re|ve|ll|m|t|s|d|n)\b)(?=\w)", "' "),
        # Signs; a comma or colon before a digit stays: 3,500 and 10:30.
        (r"([^.])(\.)([\])}>\"'»”’ ]*+)\s*$", r"\1 \2 \3 "),
        (r"([:,])(\D)", r" \1 \2"),
        (r"([:,])$", r" \1 "),
        (r"\.{2,}", r" \g<0> "),
        (r"[;@#$%&]", r" \g<0> "),
        ("[\u2012-\u2015]", r" \g<0> "),
        (r"([^.])(\.)([\])}>\"']*)\s*$", r"\1 \2\3 "),
        (r"[?!]", r" \g<0> "),
        (r"([^'])' ", r"\1 ' "),
        (r"\*", r" \g<0> "),
        (r"[][(){}<>]", r" \g<0> "),
        ("--", " -- "),
        (r"^|$", " "),
        # Closing quotes and clitics.
        ("([»”’])", r" \1 "),
        ("''", " '' "),
        ('"', " '' "),
        (r"\s+", " "),
        ("([^' ])('s|'m|'d|') ", r"\1 \2 "),
        ("([^' ])('ll|'re|'ve|n't) ", r"\1 \2 "),
        (
            r"\b(can)(not)\b|\b(d)('ye)\b|\b(gim)(me)\b|\b(gon)(na)\b|"
            r"\b(got)(ta)\b|\b(lem)(me)\b|\b(more)('n)\b|\b(wan)(na)(?=\s)",
            lambda m: " {} {} ".format(*filter(None, m.groups())),
        ),
        (r" ('t)(is|was)\b", r" \1 \2 "),
    )
)
# A period, question or exclamation mark that may end a sentence: another sign
# follows, or white space and a word.
_END = re.compile(
    "[.?!](?=[)\";}\\]*:@'({\\[\u2018\u2019\u201c\u201d\xab\xbb?!]|\\s+(\\S+))"
)
_CLOSING = re.compile(
    "[\"')\\]}\u2018\u2019\u201c\u201d\xab\xbb]+?(?:\\s+|(?=--)|$)"
)
_LAST_WORD = re.compile("'?[^\\s)\";}\\]*:@'({\\[?!,]*$")
_NUMBER = re.compile(r"-?[.,]?\d[\d,.-]*")
# What the evaluation's model of sentences takes for abbreviations: no `etc`.
_ABBREVIATIONS = frozenset(
    (
        "a.m.e adm ala ariz aug ave bros c.i.t c.o.m.b calif chg cie co col "
        "colo conn corp cos ct dec dr feb fla fri ft ga gen i.m.s ill inc jan "
        "jr kan ky lt ltd m.b.a m.d.c maj messrs mg mich minn mr mrs ms nev "
        "nov oct ok okla ore p.a.m pa ph.d prof rep reps s.a.y s.p.a sen sep "
        "sept sr st sw tenn tues u.s.a u.s.s.r va vs vt w.va wash wed wis yr "
    ).split()
) | frozenset("cdefghklmnprstvw")
# The same with a period between two letters: a.m, u.s.
_ABBREVIATIONS |= frozenset(
    ".".join(letters)
    for letters in (
        "aa ac ad ag ah am as at bf bv cv dc dh dw ef eh el em fg fj gd gf gk "
        "hc hf hm jb jc jj jk jp jr la lf lp mj nc nd nh nj nm nv ny pm ra rh "
        "ri rj rk rt sa sc sg ss tj uk un us wc wr ww "
    ).split()
)


def words(text: str) -> list[str]:
    """Cuts lower-cased Latin text into words and signs."""
    return [word for part in sentences(text) for word in _sentence_words(part)]


def _sentence_words(text: str) -> list[str]:
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text.split()


def sentences(text: str) -> list[str]:
    """Cuts lower-cased text where a sentence ends."""
    parts, start = [], 0
    for end in _END.finditer(text):
        last = _LAST_WORD.search(text[start : end.start()])
        word = last[0] if last else ""
        following = end[1] or text[end.end()]
        if end[0] == "." and _goes_on(word, following):
            continue
        after = end.start(1) if end[1] else end.end()
        if closing := _CLOSING.match(text, after):
            # A quotation mark or bracket closes with its sentence.
            parts.append(text[start : closing.end()])
            start = closing.end()
        else:
            parts.append(text[start : end.end()])
            start = after
    return [*parts, text[start:]]


def _goes_on(word: str, following: str) -> bool:
    """Whether a period after a word belongs to it and ends no sentence."""
    if not word or word.endswith("."):
        return True  # an ellipsis
    if word in _ABBREVIATIONS or word.rpartition("-")[2] in _ABBREVIATIONS:
        return True
    # An initial or a number: what comes next may begin a sentence, or not.
    if not (len(word) == 1 and word.isalpha() or _NUMBER.fullmatch(word)):
        return False
    return following[0].islower() or (
        following[0] in ";:,.!?" and not following.startswith("..")
    )
