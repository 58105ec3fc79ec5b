"""Optional folding of typographic signs that Chinese vocabularies lack.

    >>> normalize("“Ａ１”——等等…")
    '"A1"--等等...'

The 21,128-token vocabulary has no curly quotes, dashes or ellipsis: in news
they are the commonest [UNK]. The released models were trained with those
[UNK], so folding is off by default; a new model gains by it. The same table
serves the data builder and the exported preprocessor.
"""

# One character to its replacement; nothing else is touched. Full-width
# punctuation stays: ， ！ （ and the like have tokens of their own.
REPLACEMENTS: dict[str, str] = {
    "“": '"',
    "”": '"',
    "‟": '"',
    "‘": "'",
    "’": "'",
    "‚": "'",
    "‛": "'",
    "–": "-",
    "—": "-",
    "―": "-",
    "…": "...",
    # Full-width letters and digits, which input methods produce at random.
    **{
        chr(code): chr(code - 0xFEE0)
        for first, last in ("０９", "ＡＺ", "ａｚ")
        for code in range(ord(first), ord(last) + 1)
    },
}

_TABLE = str.maketrans(REPLACEMENTS)


def normalize(text: str) -> str:
    """Returns `text` with every key of `REPLACEMENTS` replaced."""
    return text.translate(_TABLE)
