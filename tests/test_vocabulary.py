"""Learning a vocabulary, and assigning its free slots."""

from collections import Counter

import pytest

from albert_tf2 import Tokenizer, UserError, Vocabulary
from albert_tf2.data import (
    corpus,
    recognition,
    vocabulary,
    vocabulary_growth,
)
from albert_tf2.data.read_config import ReadConfig


def assign(tokens, new, **settings):
    return vocabulary_growth.add_words(tokens, new, **settings).tokens


def write_corpus(path, text):
    path.write_text(text, encoding="utf-8")
    return corpus.find_files(str(path))


def test_words_are_counted_as_the_tokenizer_sees_them(tmp_path):
    text = "我爱ALBERT，Café。\n\n我我 café\u200b ＡI\n" * 3
    files = write_corpus(tmp_path / "a.txt", text)
    counts = vocabulary.count_words(files)
    expected = Counter()
    for line in text.split("\n"):
        expected.update(word for word, _ in vocabulary.split_words(line))
    assert counts == expected
    folded = vocabulary.count_words(files, config=ReadConfig(normalize=True))
    assert folded["ai"] == 3 and folded["ａi"] == 0


def test_special_tokens_have_the_ids_of_the_released_models(shared_vocab):
    released = Vocabulary.load(shared_vocab)
    assert released.tokens[:104] == vocabulary.RESERVED
    tokens = vocabulary.learn(Counter({"我": 5, "爱": 3}), 200)
    ids = Vocabulary(tokens).ids
    special = [ids[token] for token in vocabulary.SPECIAL_TOKENS]
    assert special == [0, 100, 101, 102, 103]
    assert tokens[104:106] == ["我", "爱"]


def test_learned_pieces_spell_the_corpus():
    words = Counter(
        {"learning": 50, "learned": 40, "walking": 30, "walked": 20, "的": 99}
    )
    tokens = vocabulary.learn(words, 104 + 1 + 72 + 20)
    assert len(tokens) <= 197
    tokenizer = Tokenizer(Vocabulary(tokens))
    # Every Latin word can be spelled; common parts are one piece.
    assert "[UNK]" not in tokenizer.tokenize("zebra x86 learning").tokens
    pieces = tokenizer.tokenize("learning walked").tokens
    assert len(pieces) <= 5


def test_coverage_and_minimum_count_decide_about_characters():
    words = Counter({"的": 900, "了": 90, "鸷": 9, "鹱": 1})

    def learned(**settings):
        return vocabulary.learn(words, 1000, **settings)[104:108]

    assert learned(character_coverage=0.98)[:2] == ["的", "了"]
    assert "鸷" not in learned(character_coverage=0.98)
    assert "鸷" in learned(character_coverage=0.9999)
    assert "鹱" not in learned(character_coverage=1.0)
    assert "鹱" in learned(character_coverage=1.0, min_count=1)
    assert "鹱" in learned(character_coverage=0.5, required=["鹱"])


def test_character_sets():
    common = vocabulary.characters_of("gb2312-1")
    assert len(common) == len(set(common)) == 3755
    assert common[0] == "啊" and common[-1] == "座"
    everything = vocabulary.characters_of("gb2312")
    assert len(everything) == 6763 and set(common) < set(everything)
    with pytest.raises(UserError, match="must be at least 4236"):
        vocabulary.learn(Counter({"我": 5}), 3000, required=common)


def test_slots_are_assigned_in_order_and_ids_stay():
    tokens = [*vocabulary.RESERVED, "我", "al"]
    assigned = assign(tokens, ["😀", "chatgpt", "##gpt"])
    assert assigned[1:5] == ["😀", "chatgpt", "##gpt", "##😀"]
    assert assigned[5:] == tokens[5:]
    tokenizer = Tokenizer(Vocabulary(assigned))
    assert tokenizer.tokenize("我😀 ChatGPT ALGPT").ids == [104, 1, 2, 105, 3]
    assert tokenizer.tokenize("😀😀 AL😀").ids == [1, 4, 105, 4]


@pytest.mark.parametrize(
    "token, produced, text",
    [
        ("❤️", "❤", "我❤️❤️❤"),
        ("👍🏽", "👍🏽", "👍🏽👍🏽"),
        ("👨‍👩‍👧", "👨👩👧", "al👨‍👩‍👧👨‍👩‍👧"),
        ("🇨🇳", "🇨🇳", "🇨🇳🇨🇳"),
        ("℃", "℃", "al℃"),
    ],
)
def test_signs_are_known_wherever_they_stand(token, produced, text):
    tokens = [*vocabulary.RESERVED, "我", "al"]
    assigned = assign(tokens, [token])
    assert assigned[1:3] == [produced, f"##{produced}"]
    found = Tokenizer(Vocabulary(assigned)).tokenize(text).tokens
    assert "[UNK]" not in found


@pytest.mark.parametrize(
    "token, message",
    [
        ("新冠", "'新冠' is cut into 新 冠"),
        ("ChatGPT", "'ChatGPT' is spelled 'chatgpt'"),
        ("##北", "'##北' is never a piece: 北 stands alone"),
        ("a b", "'a b' is cut into a b"),
        ("\u200b", "is removed"),
    ],
)
def test_tokens_that_cannot_work_are_refused(token, message):
    with pytest.raises(UserError, match=message) as error:
        assign([*vocabulary.RESERVED, "我"], ["好", token, "x"])
    assert "1 of 3 tokens would never be produced" in str(error.value)


def test_all_problems_are_told_at_once():
    with pytest.raises(UserError, match="2 of 3 tokens .*新冠.*; 'X'"):
        assign(vocabulary.RESERVED, ["新冠", "好", "X"])
    assert assign(vocabulary.RESERVED, ["Xy"], do_lower_case=False)[1] == "Xy"


def test_problems_of_words_and_of_room_are_told_together():
    tokens = [*vocabulary.SPECIAL_TOKENS, "[unused1]"]
    with pytest.raises(UserError) as error:
        assign(tokens, ["新冠", "x", "Y", "z"])
    assert str(error.value) == (
        "2 of 4 tokens would never be produced: '新冠' is cut into 新 冠; "
        "'Y' is spelled 'y'; leave Chinese words out: their characters are "
        "the tokens, and --user_dictionary of the builder keeps them whole; "
        "2 tokens need a slot, but 1 [unusedN] are free: pass --grow, or "
        "leave out z"
    )
    with pytest.raises(UserError, match="25 of 25 .*'A5 b' .*; and 5 more$"):
        vocabulary_growth.add_words(
            tokens, [f"A{i} b" for i in range(5, 30)], grow=True
        )


def test_the_table_grows_behind_the_last_token():
    tokens = [*vocabulary.SPECIAL_TOKENS, "[unused1]", "我", "al"]
    grown = vocabulary_growth.add_words(
        tokens, ["tidb", "😃", "al"], behind=["tikv", "tidb"], grow=True
    )
    assert grown.tokens == [
        *vocabulary.SPECIAL_TOKENS, "tidb", "我", "al", "😃", "##😃", "tikv"
    ]  # fmt: skip
    assert grown.assigned == ["tidb"] and grown.known == ["al"]
    assert grown.added == ["😃", "##😃", "tikv"]
    only = vocabulary_growth.add_words(tokens, [], behind=["tikv"], grow=True)
    assert only.tokens == [*tokens, "tikv"]  # the slot stays free


def test_growing_by_command(tmp_path, capsys):
    tokens = [*vocabulary.SPECIAL_TOKENS, "[unused1]", "我"]
    (tmp_path / "vocab.txt").write_text("\n".join(tokens) + "\n", "utf-8")
    (tmp_path / "new.txt").write_text("tidb\n😃\n", "utf-8")
    command = ["--vocab_file", f"{tmp_path}/vocab.txt", "--output",
               f"{tmp_path}/out.txt"]  # fmt: skip
    named = [*command, "--assign_file", f"{tmp_path}/new.txt"]
    with pytest.raises(UserError, match="3 tokens need a slot, but 1"):
        vocabulary.main(named)
    assert not (tmp_path / "out.txt").exists()
    vocabulary.main([*named, "--grow"])
    assert capsys.readouterr().out.endswith(
        "9 tokens, 0 slots free; 1 assigned: tidb; 2 behind the last token: "
        "😃 ##😃 (train with --init_checkpoint and --set "
        "grow_vocabulary=true)\n"
    )
    found = Vocabulary.load(tmp_path / "out.txt").tokens
    assert found == (*tokens[:5], "tidb", "我", "😃", "##😃")
    vocabulary.main([*command, "--grow", "tikv", "raft"])
    found = Vocabulary.load(tmp_path / "out.txt").tokens
    assert found == (*tokens, "tikv", "raft")


def test_words_that_save_the_most_tokens_are_found(tmp_path, capsys):
    tokens = [*vocabulary.RESERVED, *vocabulary.ALPHABET, "的", "ti", "##db"]
    words = Counter(
        {"tidb": 50, "raft": 20, "2024": 900, "的": 999, "鹱": 30, "a": 9,
         "rocks": 1, "x" * 40: 90}
    )  # fmt: skip
    # raft saves 3 tokens each time, tidb 1; of 鹱 nothing was known.
    found = vocabulary_growth.worthwhile(words, tokens, 9, min_count=2)
    assert found == ["raft", "鹱", "tidb"]
    assert vocabulary_growth.worthwhile(words, tokens, 1, min_count=2) == [
        "raft"
    ]
    assert "rocks" in vocabulary_growth.worthwhile(
        words, tokens, 9, min_count=1
    )
    (tmp_path / "vocab.txt").write_text("\n".join(tokens) + "\n", "utf-8")
    write_corpus(tmp_path / "a.txt", "我的TiDB是Raft的。\n" * 9)
    command = ["--vocab_file", f"{tmp_path}/vocab.txt", "--output",
               f"{tmp_path}/out.txt"]  # fmt: skip
    corpus_flag = ["--input_file", f"{tmp_path}/a.txt"]
    vocabulary.main([*command, *corpus_flag, "--new_words", "3",
                     "--assign", "raft"])  # fmt: skip
    assert Vocabulary.load(tmp_path / "out.txt").tokens[1:5] == (
        "raft", "。", "我", "是"
    )  # fmt: skip
    for lacking in (corpus_flag, ["--new_words", "3"]):
        with pytest.raises(UserError, match="go together"):
            vocabulary.main([*command, *lacking])


def test_known_tokens_are_skipped_with_a_word(tmp_path, capsys):
    tokens = [*vocabulary.RESERVED, "我", "keras"]
    (tmp_path / "vocab.txt").write_text("\n".join(tokens) + "\n", "utf-8")
    (tmp_path / "new.txt").write_text("\ufeffkeras\n\n 😃 \n好\n", "utf-8")
    vocabulary.main(
        ["--vocab_file", f"{tmp_path}/vocab.txt", "--output",
         f"{tmp_path}/out.txt", "--assign", "我", "bert",
         "--assign_file", f"{tmp_path}/new.txt"]
    )  # fmt: skip
    told = capsys.readouterr().out
    assert told.endswith(
        "106 tokens, 95 slots free; 4 assigned: bert 😃 好 ##😃; "
        "2 known already: 我 keras\n"
    )
    found = Vocabulary.load(tmp_path / "out.txt").tokens
    assert found[1:5] == ("bert", "😃", "好", "##😃")
    assert found[5:] == tuple(tokens[5:])
    with pytest.raises(UserError, match="name new tokens with --assign"):
        vocabulary.main(["--vocab_file", f"{tmp_path}/vocab.txt", "--output",
                         f"{tmp_path}/out.txt"])  # fmt: skip


@pytest.mark.parametrize("size", [300, 500, 1000])
def test_letters_come_first_in_a_small_vocabulary(size):
    words = Counter({chr(0x4E00 + i): 5000 - i for i in range(2000)})
    words |= Counter({"learning": 50, "x86": 40})
    tokens = vocabulary.learn(words, size, character_coverage=1.0)
    assert len(tokens) <= size
    tokenizer = Tokenizer(Vocabulary(tokens))
    assert "[UNK]" not in tokenizer.tokenize("zebra qxv 0123456789").tokens
    assert tokens[104] == "一"


def test_lost_letters_are_named(tmp_path, capsys):
    text = "".join(map(chr, range(0x4E00, 0x4E80)))
    write_corpus(tmp_path / "a.txt", f"{text}\n" * 3)
    vocabulary.main(
        ["--input_file", f"{tmp_path}/a.txt", "--vocab_size", "150",
         "--output", f"{tmp_path}/vocab.txt"]
    )  # fmt: skip
    told = capsys.readouterr().out
    assert "--vocab_size 150 leaves no room for ##l m ##m " in told
    assert "so words with them become [UNK] (from about 199 on" in told
    assert len(Vocabulary.load(tmp_path / "vocab.txt")) == 150


def test_no_free_slot():
    tokens = [t for t in vocabulary.RESERVED if "unused" not in t]
    with pytest.raises(UserError, match="2 tokens need a slot, but 0 .*x ☺"):
        assign([*tokens, "##☺"], ["x", "☺"])


def test_command_line(tmp_path, capsys):
    write_corpus(tmp_path / "a.txt", "我爱北京天安门。\n我爱TensorFlow。\n" * 9)
    output = tmp_path / "vocab.txt"
    arguments = ["--input_file", str(tmp_path / "a.txt"), "--output",
                 str(output), "--vocab_size", "400"]  # fmt: skip
    assert vocabulary.main(arguments) == 0
    learned = Vocabulary.load(output)
    assert "0.000 % of the words are [UNK]" in capsys.readouterr().out
    assert "北" in learned.ids and "tensorflow" in learned.ids
    again = tmp_path / "again.txt"
    vocabulary.main(["--vocab_file", str(output), "--output", str(again),
                     "--assign", "keras"])  # fmt: skip
    assert Vocabulary.load(again).ids["keras"] == 1
    with pytest.raises(UserError, match="pass --input_file"):
        vocabulary.main(["--output", str(output)])
    empty = write_corpus(tmp_path / "empty.txt", "\n\n")[0].path
    with pytest.raises(UserError, match="no words"):
        vocabulary.main(["--input_file", empty, "--output", str(output)])


def test_more_than_a_tenth_is_too_much_to_skip_here_too(tmp_path):
    good, bad = b"a" * 64 + b"\n", b"\xb5\xc4\n"
    (tmp_path / "a.txt").write_bytes(good * 1100 + bad * 900)
    flags = ["--input_file", f"{tmp_path}/a.txt", "--on_error", "skip"]
    with pytest.raises(UserError, match="900 of 2,000 lines .* a tenth"):
        vocabulary.main([*flags, "--output", f"{tmp_path}/vocab.txt"])
    (tmp_path / "a.txt").write_bytes(good * 1100 + bad * 9)
    found = vocabulary.count_words(
        recognition.find(f"{tmp_path}/a.txt", ReadConfig(on_error="skip")),
        config=ReadConfig(on_error="skip"),
    )
    assert found == {"a" * 64: 1100}
    with pytest.raises(UserError, match="is a folder: name a file in it"):
        vocabulary.main([*flags, "--output", str(tmp_path)])
