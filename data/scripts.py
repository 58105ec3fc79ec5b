"""Tells the scripts of characters apart, as the report counts them."""

import unicodedata

from albert_tf2.text.tokenization import is_chinese


def script_of(character: str) -> str:
    """Names the script of a character, as the report tells them apart.

    A Chinese character is simplified if GB 2312 has it and Big5 has not,
    traditional the other way round, and common to both otherwise.
    """
    if is_chinese(character):
        gb, big5 = _encodes(character, "gb2312"), _encodes(character, "big5")
        if gb == big5:
            return "common Chinese" if gb else "rare Chinese"
        return "simplified" if gb else "traditional"
    category = unicodedata.category(character)
    if category[0] in "ZC" and category != "Co":
        return "white space and control"
    if category == "Nd":
        return "digits"
    if category[0] == "P":
        return "punctuation"
    name = unicodedata.name(character, "")
    if category[0] == "L":
        for script in ("LATIN", "HIRAGANA", "KATAKANA", "HANGUL"):
            if script in name:
                return script.capitalize()
        return "other letters"
    code = ord(character)
    if 0x1F000 <= code <= 0x1FAFF or 0x2600 <= code <= 0x27BF:
        return "emoji"
    return "other signs"


def _encodes(character: str, encoding: str) -> bool:
    try:
        character.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True
