"""The tokenizer against the originals' output and its own offsets."""

import hashlib
import json
import unicodedata

import pytest

from albert_tf2 import Tokenizer, UserError, Vocabulary
from albert_tf2.text.text_settings import SPECIAL_TOKENS, TextSettings
from albert_tf2.text.tokenization import MAX_CHARACTERS_PER_WORD, is_chinese

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def make_tokenizer(*tokens, do_lower_case=True):
    settings = TextSettings(do_lower_case=do_lower_case)
    return Tokenizer(Vocabulary([*SPECIALS, *tokens]), settings)


def test_golden_lines_of_the_original_program(shared, shared_vocab):
    tokenizer = Tokenizer(shared_vocab)
    lines = (shared / "golden" / "tokenization.jsonl").read_bytes()
    rows = [json.loads(line) for line in lines.splitlines()]
    assert len(rows) == 234
    for row in rows:
        encoding = tokenizer.tokenize(row["text"])
        assert encoding.tokens == row["tokens"], row["text"]
        assert encoding.ids == row["ids"], row["text"]


def test_offsets_point_into_the_original_text():
    tokenizer = make_tokenizer(
        "模", "型", "al", "##bert", "cafe", "i", "##x", "，", "한"
    )
    text = "\ufeff模 型ＡALBERT，Cafe\u0301\u200b İX"
    encoding = tokenizer.tokenize(text)
    covered = [text[start:end] for start, end in encoding.offsets]
    assert encoding.tokens == [
        "模", "型", "[UNK]", "，", "cafe", "i", "##x"
    ]  # fmt: skip
    assert covered == ["模", "型", "ＡALBERT", "，", "Cafe", "İ", "X"]


def test_offsets_cover_every_kept_character(shared, shared_vocab):
    """Known tokens spell the normalised text between their offsets."""
    tokenizer = Tokenizer(shared_vocab)
    path = shared / "datasets" / "corpus" / "small_mixed.txt"
    lines = path.read_text(encoding="utf-8").split("\n")[:1500]
    for line in lines:
        tokens, _, offsets = tokenizer.tokenize(line)
        for token, (start, end) in zip(tokens, offsets, strict=True):
            spelled = unicodedata.normalize("NFD", line[start:end].lower())
            spelled = "".join(
                c for c in spelled if unicodedata.category(c) != "Mn"
            )
            if token != "[UNK]":
                assert spelled == token.removeprefix("##")
        ends = [0, *(end for _, end in offsets)]
        for end, (start, _) in zip(ends, offsets, strict=False):
            assert line[end:start].strip() == ""


def test_traps_of_the_originals():
    tokenizer = make_tokenizer(
        "\u2028", "σας", "σα", "##σ", "x", "##y", ";", "!"
    )
    # The line separator is white space to `str.split`, so its token is
    # never produced; NUL, U+FFFD and control characters vanish.
    assert tokenizer.tokenize("x\u2028y\x00\ufffd\x0by").tokens == [
        "x", "[UNK]"
    ]  # fmt: skip
    assert tokenizer.tokenize("x\x0b\u200by").tokens == ["x", "##y"]
    # A sigma at the end of a word has a form of its own.
    assert tokenizer.tokenize("ΣΑΣ").tokens == ["σας"]
    # U+037E becomes ";" under NFD, and then splits the word.
    assert tokenizer.tokenize("x\u037ex").tokens == ["x", ";", "x"]
    assert tokenizer.tokenize("[MASK]").tokens[1] == "[UNK]"
    assert tokenizer.tokenize("\ud800!").tokens == ["[UNK]", "!"]
    assert tokenizer.tokenize("").ids == []


def test_signs_spaces_and_accents_are_the_originals():
    tokenizer = make_tokenizer("x", "##y", "y", "$", "e", "xy")
    assert tokenizer.tokenize("x\ty\ry").tokens == ["x", "y", "y"]
    assert tokenizer.tokenize("x$y").tokens == ["x", "$", "y"]
    assert tokenizer.tokenize("É").tokens == ["e"]
    # What was removed inside of a token lies within its offsets.
    assert tokenizer.tokenize("x\u200by").offsets == [(0, 3)]
    assert is_chinese("\U0002fa1f") and not is_chinese("\U0002fa20")


def test_a_word_of_200_characters_is_the_longest():
    tokenizer = make_tokenizer("a", "##a")
    longest = "a" * MAX_CHARACTERS_PER_WORD
    assert tokenizer.tokenize(longest).tokens == ["a"] + ["##a"] * 199
    longer = tokenizer.tokenize(longest + "a")
    assert longer.tokens == ["[UNK]"]
    assert longer.offsets == [(0, 201)]


def test_longest_piece_wins_and_one_bad_part_spoils_the_word():
    tokenizer = make_tokenizer("un", "una", "##ff", "##able", "##ffa")
    assert tokenizer.tokenize("unaffable").tokens == ["[UNK]"]
    tokenizer = make_tokenizer("un", "una", "##ff", "##able")
    assert tokenizer.tokenize("UNAFFABLE").tokens == ["una", "##ff", "##able"]


def test_cased_keeps_case_and_accents():
    tokenizer = make_tokenizer("É", "e", do_lower_case=False)
    assert tokenizer.tokenize("É e E").tokens == ["É", "e", "[UNK]"]


def test_normalization_keeps_offsets_into_the_given_text():
    vocabulary = Vocabulary([*SPECIALS, '"', "-", ".", "a1", "好"])
    text = "“Ａ１”——好…好"
    plain = Tokenizer(vocabulary).tokenize(text)
    assert plain.tokens.count("[UNK]") == 6
    folding = Tokenizer(vocabulary, TextSettings(normalize=True))
    tokens, _, offsets = folding.tokenize(text)
    assert tokens == ['"', "a1", '"', "-", "-", "好", ".", ".", ".", "好"]
    assert [text[a:b] for a, b in offsets] == [
        "“", "Ａ１", "”", "—", "—", "好", "…", "…", "…", "好"
    ]  # fmt: skip


def test_vocabulary_splits_on_line_feeds_only(tmp_path, shared_vocab):
    vocabulary = Vocabulary.load(shared_vocab, size=21128)
    assert vocabulary.tokens[343] == "\u2028"
    windows = tmp_path / "vocab.txt"
    windows.write_bytes("\ufeff".encode() + "\r\n".join(SPECIALS).encode())
    assert Vocabulary.load(windows).tokens == tuple(SPECIALS)


@pytest.mark.parametrize(
    "lines, message",
    [
        (SPECIALS + ["的", "的"], "line 7: token '的' is already on line 6"),
        (SPECIALS + ["", "的"], r"line 6: the line is empty.*\[empty\]"),
        (SPECIALS + ["的", "", ""], "line 7: the line is empty; remove it"),
        (SPECIALS + ["的", "的"], r"already on line 6; rename .*\[again6\]"),
        (
            SPECIALS + ["的", "的", "我", "我", "", "是", "是", "是", "是"],
            r"line 7: .* others stay \(likewise line 9, 10, 12, 13, 14\)$",
        ),
        (SPECIALS + ["的"] * 9, r"\(likewise line 8, .* 12 and 2 more\)$"),
        (SPECIALS + ["的", "的"], "ids of the others stay$"),
        (SPECIALS + ["的", "", "", ""], r"remove it \(likewise line 8, 9\)$"),
        (["[PAD]", "的"], "special tokens .* are missing"),
    ],
)
def test_bad_vocabularies_are_refused(tmp_path, lines, message):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=message):
        Vocabulary.load(path)


def test_a_vocabulary_is_known_by_its_tokens(tmp_path):
    tokens = [*SPECIALS, "模", "\u2028"]
    plain = "".join(f"{token}\n" for token in tokens).encode()
    spelled = "\ufeff" + "\r\n".join(tokens)  # no end of line at the end
    (tmp_path / "vocab.txt").write_bytes(spelled.encode())
    vocabulary = Vocabulary.load(tmp_path / "vocab.txt")
    assert vocabulary.to_bytes() == plain
    assert vocabulary.sha256 == hashlib.sha256(plain).hexdigest()
    assert Vocabulary([*tokens[:-2], *tokens[:-3:-1]]).sha256 != (
        vocabulary.sha256
    )


def test_unreadable_vocabularies_are_refused(tmp_path):
    with pytest.raises(UserError, match="absent.txt does not exist"):
        Vocabulary.load(tmp_path / "absent.txt")
    path = tmp_path / "gbk.txt"
    path.write_bytes("的".encode("gbk"))
    with pytest.raises(UserError, match="not UTF-8"):
        Vocabulary.load(path)
    path.write_text("\n".join(SPECIALS), encoding="utf-8")
    with pytest.raises(UserError, match="has 5 tokens"):
        Vocabulary.load(path, size=6)


def test_an_endless_token_is_told_short():
    with pytest.raises(UserError) as error:
        Vocabulary([*SPECIAL_TOKENS, "9" * 5_000, "9" * 5_000])
    assert "is already on line 6" in str(error.value)
    assert len(str(error.value)) < 400
