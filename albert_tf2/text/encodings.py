"""What a file that is not UTF-8 is likely to be.

Chinese text is kept in few encodings, and the frequent characters of the
language tell which of them reads it as text.
"""

import codecs

SAMPLE_BYTES = 1 << 18
# GB18030 holds GBK and GB2312.
CANDIDATES = ("GB18030", "BIG5-HKSCS")
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

    >>> likely("今天的天气很好，我们去爬山。".encode("gbk"))
    'GB18030'
    """
    for bom, name in _BOMS:
        if head.startswith(bom):
            return name
    best, most = None, 0
    candidates = [*CANDIDATES, "UTF-16LE", "UTF-16BE"]
    for name in candidates:
        try:
            # The last character may be cut.
            text = codecs.getincrementaldecoder(name)().decode(head)
        except UnicodeDecodeError:
            continue
        count = sum(character in _FREQUENT for character in text)
        if count > most:
            best, most = name, count
    return best
