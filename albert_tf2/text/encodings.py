"""What a file that is not UTF-8 is likely to be.

Chinese text is kept in few encodings, and the frequent characters of the
language tell which of them reads it as text.
"""

import codecs

SAMPLE_BYTES = 1 << 18
# GB18030 holds GBK and GB2312.
CANDIDATES = ("GB18030", "BIG5-HKSCS")
# Text in UTF-8 but for some bytes.
DAMAGED = "UTF-8"
_BOMS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
# Together a fifth of any Chinese text, simplified or traditional.
_FREQUENT = frozenset(
    "的一是不了在人有我他这這个個们們中来來上大为為和国國，。"
)


def likely(head: bytes) -> str | None:
    """Names the encoding that reads the first bytes of a file as Chinese.

    `DAMAGED` stands for UTF-8 in which some bytes are wrong, None for bytes
    that no encoding reads so.

    >>> likely("今天的天气很好，我们去爬山。".encode("gbk"))
    'GB18030'
    """
    for bom, name in _BOMS:
        if head.startswith(bom):
            return name
    damaged = head.decode("utf-8", "replace")
    best, most = None, 0
    if _count(damaged):
        best, most = DAMAGED, _count(damaged)
    for name in (*CANDIDATES, "UTF-16LE", "UTF-16BE"):
        try:
            # The last character may be cut.
            text = codecs.getincrementaldecoder(name)().decode(head)
        except UnicodeDecodeError:
            continue
        if _count(text) > most:
            best, most = name, _count(text)
    return best


def _count(text: str) -> int:
    return sum(character in _FREQUENT for character in text)
