"""The preprocessor SavedModel: TF Hub's text API, ids and offsets."""

import json
import random
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_text as tf_text

from albert_tf2 import UserError, hub_example
from albert_tf2.hub_export import normalizer, verify
from albert_tf2.hub_export.preprocessor import export_preprocessor
from albert_tf2.text.normalization import REPLACEMENTS
from albert_tf2.text.text_settings import TextSettings
from albert_tf2.text.tokenization import SPECIAL_TOKENS, Tokenizer

pytestmark = pytest.mark.usefixtures("warm_python")

INPUTS = ["input_word_ids", "input_mask", "input_type_ids"]
CLS, SEP = 2, 3

# Ranges that a Chinese tokenizer stumbles over.
FUZZ_RANGES = [
    (0x20, 0x7F),  # ASCII
    (0x00, 0x20),  # controls
    (0x80, 0x250),  # Latin-1, accents
    (0x300, 0x370),  # combining marks
    (0x370, 0x590),  # Greek (final sigma), Cyrillic, Armenian
    (0x590, 0x900),  # Hebrew, Arabic
    (0x900, 0xE80),  # Indic, Thai
    (0x1100, 0x1200),  # jamo
    (0x1E00, 0x2000),  # precomposed accents
    (0x2000, 0x2070),  # spaces, ZWJ, U+2028, curly quotes
    (0x20A0, 0x2800),  # signs
    (0x2E80, 0x3130),  # radicals, CJK punctuation, kana
    (0x3400, 0x3500),
    (0x4E00, 0x9FFF),
    (0x4E00, 0x9FFF),
    (0xAC00, 0xD7A4),  # Hangul
    (0xE000, 0xE100),  # private use
    (0xF900, 0xFB00),  # compatibility ideographs
    (0xFE00, 0xFE50),  # variation selectors, vertical forms
    (0xFEFF, 0x10000),  # BOM, full-width, U+FFFD, noncharacters
    (0x10400, 0x10450),  # letters with case beyond the BMP
    (0x1F300, 0x1FA00),  # emoji
    (0x20000, 0x20100),
    (0xE0000, 0xE0100),  # tags
    (0x10FF00, 0x110000),
]
FUZZ_WORDS = [
    "[MASK]", "[CLS]", "[UNK]", "##", "##ing", "今天", "天气", "ALBERT",
    "ＡＬＢＥＲＴ", "Ａ", "，", "。", "“", "”", "…", "——",
    "👨‍👩‍👧", "🇨🇳", "\u200d",
    "\u2028", "\u2029", "\u3000", "\xa0", "\x00", "é", "e\u0301", "İ", "ǅ",
    "ΑΣ", "Σ", "ΟΔΟΣ.", "Σ\u0301", "ß", "한국", "\ufeff", "iPhone15", "3.14",
    "ﷺ", "か\u3099", "\r\n", "\t", "http://a.b/c?d=e",
]  # fmt: skip


def fuzz_texts(count: int, seed: int) -> list[bytes]:
    """Returns texts that mix everything above, a few of them broken UTF-8."""
    rng = random.Random(seed)
    texts = []
    for number in range(count):
        parts = []
        for _ in range(rng.randrange(24)):
            if rng.random() < 0.3:
                parts.append(rng.choice(FUZZ_WORDS))
            else:
                low, high = rng.choice(FUZZ_RANGES)
                parts.append(chr(rng.randrange(low, high)))
        if number % 997 == 0:  # long words: known letters, kana, marks
            letter = rng.choice(["a", "か", "7", "е", "e\u0301", "한"])
            parts.append(letter * rng.choice([66, 67, 199, 200, 201, 900]))
        text = "".join(parts).encode("utf-8", "surrogatepass")
        if number % 50 == 0 and text:
            cut = rng.randrange(len(text))
            junk = rng.choice([b"\xff", b"\xed\xa0\x80", b"\xc0\xaf", b"\xe4"])
            text = text[:cut] + junk + text[cut:]
        texts.append(text)
    return texts


@pytest.fixture(scope="module")
def small_vocab(tmp_path_factory):
    """A vocabulary of a few tokens; [CLS] is 2 and [SEP] 3."""
    letters = [*"今天气很好的我你他，。ab"]
    letters += ["al", "##bert", "##a", "##b", "σ", "##ς", "##σ"]
    tokens = [*SPECIAL_TOKENS, *letters]
    path = tmp_path_factory.mktemp("vocab") / "tokens.txt"
    path.write_text("\n".join(tokens) + "\n", encoding="utf-8")
    return path


def export_and_move(vocab_file, folder):
    """Exports, moves the result and removes every trace of the original."""
    vocab_copy = shutil.copy(vocab_file, folder / "original_vocab.txt")
    exported = export_preprocessor(Tokenizer(vocab_copy), folder / "exported")
    (folder / "original_vocab.txt").unlink()
    return shutil.move(exported, folder / "moved")


@pytest.fixture(scope="module")
def small(small_vocab, tmp_path_factory):
    """The folder of a small preprocessor that was moved."""
    return export_and_move(small_vocab, tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def loaded(small):
    return tf.saved_model.load(str(small))


@pytest.fixture(scope="module")
def real(shared_vocab, tmp_path_factory):
    """The preprocessor of the released models' vocabulary, loaded."""
    folder = export_and_move(shared_vocab, tmp_path_factory.mktemp("real"))
    return tf.saved_model.load(str(folder))


def assert_same_ids(preprocessor, tokenizer, texts, *, offsets=False):
    """Compares ids (and byte offsets) with the Python tokenizer's."""
    batch = tf.constant(texts)
    if offsets:
        tokens, starts, limits = preprocessor.tokenize.tokenize_with_offsets(
            batch
        )
        starts = starts.merge_dims(1, 2).to_list()
        limits = limits.merge_dims(1, 2).to_list()
    else:
        tokens = preprocessor.tokenize(batch)
    tokens = tokens.merge_dims(1, 2)
    ids, splits = tokens.flat_values.numpy().tolist(), tokens.row_splits.numpy()
    for row, raw in enumerate(texts):
        text = raw.decode("utf-8", "ignore")
        expected = tokenizer.tokenize(text)
        assert ids[splits[row] : splits[row + 1]] == expected.ids, raw
        if offsets:
            sizes = [len(c.encode("utf-8")) for c in text]
            ends = np.concatenate([[0], np.cumsum(sizes)])
            spans = list(zip(starts[row], limits[row], strict=True))
            assert spans == [
                (ends[start], ends[end]) for start, end in expected.offsets
            ], raw


def test_call_returns_encoder_inputs(loaded):
    """P1: string [B] -> three int32 [B, 128]."""
    outputs = loaded(tf.constant(["今天ALBERT", ""]))
    assert sorted(outputs) == sorted(INPUTS)
    for value in outputs.values():
        assert value.dtype == tf.int32 and value.shape == (2, 128)
    ids, mask, types = (outputs[name].numpy() for name in INPUTS)
    assert ids[0, :7].tolist() == [CLS, 5, 6, 18, 19, SEP, 0]
    assert ids[1, :3].tolist() == [CLS, SEP, 0]
    assert mask.sum(axis=1).tolist() == [6, 2]
    assert not types.any()


def test_tokenize_is_ragged_in_words(loaded):
    """P2: [B, (words), (tokens)]."""
    tokens = loaded.tokenize(tf.constant(["albert，今", "", "  "]))
    assert tokens.dtype == tf.int32
    assert tokens.to_list() == [[[18, 19], [14], [5]], [], []]


@pytest.mark.parametrize("ragged_rank", [1, 2])
def test_pack_one_segment(loaded, ragged_rank):
    """P3, P4: [CLS] s1 [SEP] padding, cut at `seq_length`."""
    tokens = loaded.tokenize(tf.constant(["今天天气", "我"]))
    if ragged_rank == 1:
        tokens = tokens.merge_dims(1, 2)
    packed = loaded.bert_pack_inputs([tokens], seq_length=5)
    assert packed["input_word_ids"].numpy().tolist() == [
        [CLS, 5, 6, 6, SEP],
        [CLS, 11, SEP, 0, 0],
    ]
    assert packed["input_mask"].numpy().sum(axis=1).tolist() == [5, 3]
    assert not packed["input_type_ids"].numpy().any()


@pytest.mark.parametrize("ragged_rank", [1, 2])
@pytest.mark.parametrize("seq_length", [3, 4, 5, 8, 13, 14, 40, 512])
def test_pack_two_segments_like_the_round_robin_trimmer(
    loaded, ragged_rank, seq_length
):
    """P3, P4: the same as tf.text's own trimming, combining and padding."""
    rng = np.random.default_rng(1)
    lengths = rng.integers(0, 9, size=(2, 50))
    segments = [
        tf.ragged.constant(
            [rng.integers(5, 20, size=n).tolist() for n in row],
            dtype=tf.int32,
            ragged_rank=1,
        )
        for row in lengths
    ]
    trimmed = tf_text.RoundRobinTrimmer(seq_length - 3).trim(segments)
    combined, types = tf_text.combine_segments(trimmed, CLS, SEP)
    ids, mask = tf_text.pad_model_inputs(combined, seq_length)
    types, _ = tf_text.pad_model_inputs(types, seq_length)
    if ragged_rank == 2:  # one token per word
        segments = [
            s.with_values(tf.RaggedTensor.from_uniform_row_length(s.values, 1))
            for s in segments
        ]
        segments = [
            tf.RaggedTensor.from_nested_row_splits(
                s.values.values, [s.row_splits, s.values.row_splits]
            )
            for s in segments
        ]
    packed = loaded.bert_pack_inputs(segments, seq_length=seq_length)
    for name, expected in zip(INPUTS, [ids, mask, types], strict=True):
        np.testing.assert_array_equal(packed[name], expected, err_msg=name)


def test_pack_without_rows_or_tokens(loaded):
    """P8: [] and "" are texts too."""
    empty = loaded.tokenize(tf.constant([], tf.string))
    packed = loaded.bert_pack_inputs([empty, empty], seq_length=6)
    assert packed["input_word_ids"].shape == (0, 6)
    blank = loaded.tokenize(tf.constant([""]))
    packed = loaded.bert_pack_inputs([blank, blank], seq_length=6)
    assert packed["input_word_ids"].numpy().tolist() == [
        [CLS, SEP, SEP, 0, 0, 0]
    ]
    assert packed["input_type_ids"].numpy().tolist() == [[0, 0, 1, 0, 0, 0]]
    assert loaded(tf.constant([], tf.string))["input_mask"].shape == (0, 128)


def test_special_tokens(loaded, small_vocab):
    """P5: five scalar int32."""
    special = loaded.tokenize.get_special_tokens_dict()
    assert all(v.dtype == tf.int32 and v.shape == () for v in special.values())
    assert {name: int(v) for name, v in special.items()} == {
        "vocab_size": len(small_vocab.read_text("utf-8").splitlines()),
        "padding_id": 0,
        "start_of_sequence_id": 2,
        "end_of_segment_id": 3,
        "mask_id": 4,
    }


def test_offsets_find_the_text_again(loaded):
    """P6: half-open, in bytes, around exactly the token's characters."""
    text = "我 ＡＬAlBeRt\u0301!今\u200d天é"
    tokens, starts, limits = loaded.tokenize.tokenize_with_offsets([text])
    cut = [
        text.encode()[start:limit].decode()
        for start, limit in zip(
            starts.flat_values.numpy(), limits.flat_values.numpy(), strict=True
        )
    ]
    assert cut == ["我", "ＡＬAlBeRt", "!", "今", "天", "é"]
    assert tokens.nested_row_lengths()[1].numpy().tolist() == [1] * 6


def test_runs_in_dataset_map_and_batches_of_any_size(loaded):
    """P8: as a step of an input pipeline, in graph mode."""
    texts = ["今天", "天气", "很好"]
    dataset = tf.data.Dataset.from_tensor_slices(texts).batch(2).map(loaded)
    shapes = [batch["input_word_ids"].shape[0] for batch in dataset]
    assert shapes == [2, 1]
    assert dataset.element_spec["input_word_ids"].shape == [None, 128]


def graph_ops(folder):
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString((folder / "saved_model.pb").read_bytes())
    graph = saved.meta_graphs[0].graph_def
    functions = [f.node_def for f in graph.library.function]
    return {node.op for nodes in [graph.node, *functions] for node in nodes}


def test_graph_has_no_assert_ops(small):
    """P8: TPU hosts cannot place them."""
    from pathlib import Path

    ops = graph_ops(Path(small))
    assert "FastWordpieceTokenizeWithOffsets" in ops  # the walk sees the graph
    assert not {op for op in ops if "Assert" in op}


def test_fresh_process_with_hub_layers(small, small_vocab):
    """P1-P7 from a moved folder, elsewhere, with hub.KerasLayer."""
    program = textwrap.dedent(
        """
        import sys
        import tensorflow as tf, tensorflow_hub as hub, tensorflow_text
        from tensorflow_hub.keras_layer import KerasLayer
        keras = tf.keras  # as hub; tf_keras is another package there too
        if hasattr(keras, "version"):  # Keras 3
            import tf_keras as keras
        preprocessor = hub.load(sys.argv[1])
        text = [keras.Input([], dtype=tf.string) for _ in range(2)]
        tokenize = hub.KerasLayer(preprocessor.tokenize)
        pack = hub.KerasLayer(
            preprocessor.bert_pack_inputs, arguments={"seq_length": 9}
        )
        model = keras.Model(text, pack([tokenize(t) for t in text]))
        batch = tf.constant(["今天"]), tf.constant(["我"])
        print(model(batch)["input_word_ids"].numpy().tolist())
        whole = hub.KerasLayer(sys.argv[1])
        assert not whole.trainable_variables
        single = keras.Model(text[0], whole(text[0]))
        print(single(batch[0])["input_word_ids"].numpy()[0, :5].tolist())
        print(preprocessor.vocab_file.asset_path.numpy().decode())
        """
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(small)],
        capture_output=True,
        text=True,
        cwd="/",
    )
    assert result.returncode == 0, result.stderr
    pair, single, vocab_path = result.stdout.splitlines()
    assert json.loads(pair) == [[CLS, 5, 6, SEP, 11, SEP, 0, 0, 0]]
    assert json.loads(single) == [CLS, 5, 6, SEP, 0]
    with open(vocab_path, "rb") as stream:
        assert stream.read() == small_vocab.read_bytes()


def test_no_path_of_this_machine_stays_inside(small, tmp_path_factory):
    root = str(tmp_path_factory.getbasetemp()).encode()
    from pathlib import Path

    for path in Path(small).rglob("*"):
        if path.is_file():
            found = path.read_bytes()
            assert root not in found and b"original_vocab" not in found


def test_existing_folder_is_kept(small, small_vocab):
    with pytest.raises(UserError, match="already exists"):
        export_preprocessor(Tokenizer(small_vocab), small)


def test_a_failed_export_leaves_nothing(tmp_path):
    bad = tmp_path / "vocab.txt"
    bad.write_text("一\n二\n", encoding="utf-8")
    with pytest.raises(UserError, match="special tokens"):
        export_preprocessor(Tokenizer(bad), tmp_path / "out")
    assert list(tmp_path.iterdir()) == [bad]


@pytest.mark.parametrize(
    "do_lower_case, normalize", [(True, False), (False, False), (True, True)]
)
def test_normalizer_agrees_on_every_character(do_lower_case, normalize):
    """The trie gives back the table, and nothing for the other characters."""
    table = normalizer.character_table(do_lower_case, normalize)
    model = tf_text.FastBertNormalizer(
        model_buffer=normalizer.build_model(do_lower_case, normalize)
    )
    characters = [
        chr(code) for code in range(0x110000) if not 0xD800 <= code <= 0xDFFF
    ]
    normalized = model.normalize([c.encode() for c in characters]).numpy()
    for character, result in zip(characters, normalized, strict=True):
        assert result.decode() == table.get(character, character)
        # `cut` relies on it: a word has no more characters than bytes.
        for word in result.decode().split():
            assert len(word) <= len(character.encode())


@pytest.mark.parametrize(
    "word, is_long",
    [("a" * 200, False), ("a" * 201, True), ("σ" * 200, False)]
    + [("σ" * 201, True), ("b" * 801, True), ("今" * 900, False)],
)
def test_word_limit_counts_characters(loaded, word, is_long):
    """Over 200 characters a word is one [UNK]; Chinese ones are words."""
    tokens = loaded.tokenize(tf.constant([f"我{word} 我"]))
    assert (tokens.to_list()[0][1] == [1]) == is_long
    assert tokens.to_list()[0][-1] == [11]


def test_golden_ids(real, shared):
    """All lines give the ids of the original program."""
    lines = (shared / "golden" / "tokenization.jsonl").read_text("utf-8")
    golden = [json.loads(line) for line in lines.splitlines()]
    assert len(golden) == 234
    tokens = real.tokenize(tf.constant([row["text"] for row in golden]))
    assert tokens.merge_dims(1, 2).to_list() == [row["ids"] for row in golden]


def test_fuzzed_ids_and_offsets(real, shared_vocab):
    texts = fuzz_texts(5000, seed=0)
    tokenizer = Tokenizer(shared_vocab)
    assert_same_ids(real, tokenizer, texts, offsets=True)
    assert_same_ids(real, tokenizer, texts)


@pytest.mark.parametrize("do_lower_case", [True, False])
def test_folded_signs(shared_vocab, tmp_path, do_lower_case):
    settings = TextSettings(do_lower_case=do_lower_case, normalize=True)
    tokenizer = Tokenizer(shared_vocab, settings)
    export_preprocessor(tokenizer, tmp_path / "folded")
    folded = tf.saved_model.load(str(tmp_path / "folded"))
    texts = fuzz_texts(1000, seed=2)
    texts += [sign.encode() for sign in REPLACEMENTS]
    texts += [f"中{sign}a{sign}".encode() for sign in REPLACEMENTS]
    assert_same_ids(folded, tokenizer, texts, offsets=True)
    exported = verify.Export(tmp_path / "folded", "preprocessor")
    assert list(verify.verify([exported]))


def test_cased_vocabulary(shared_vocab, tmp_path):
    tokenizer = Tokenizer(shared_vocab, TextSettings(do_lower_case=False))
    export_preprocessor(tokenizer, tmp_path / "cased")
    cased = tf.saved_model.load(str(tmp_path / "cased"))
    assert_same_ids(cased, tokenizer, fuzz_texts(1000, seed=1), offsets=True)


@pytest.mark.large
def test_a_million_fuzzed_texts(real, shared_vocab):
    tokenizer = Tokenizer(shared_vocab)
    for seed in range(100):
        assert_same_ids(real, tokenizer, fuzz_texts(10_000, seed=100 + seed))


@pytest.mark.large
@pytest.mark.parametrize("pattern", ["{}", "a{}b", "中{}a", "{0}{0}", "ab{}"])
def test_every_character_in_context(real, shared_vocab, pattern):
    texts = [
        pattern.format(chr(code)).encode()
        for code in range(0x110000)
        if not 0xD800 <= code <= 0xDFFF
    ]
    assert_same_ids(real, Tokenizer(shared_vocab), texts)


@pytest.mark.large
def test_all_of_lcqmc(real, shared, shared_vocab):
    tokenizer = Tokenizer(shared_vocab)
    for name in ("train", "dev", "test"):
        lines = (shared / "datasets" / "lcqmc" / f"{name}.txt").read_bytes()
        texts = [
            text for line in lines.splitlines() for text in line.split(b"\t")
        ]
        assert_same_ids(real, tokenizer, texts)


def test_the_example_tells_of_pairs_that_lose_their_ends(loaded):
    """[CLS] and two [SEP] stand around a pair of 48 tokens."""
    columns = (
        ["今天" * 11, "今天" * 12, "", "albert" * 12],
        ["天气我"] * 4,
        [0],
    )
    longest = (["今天" * 20, "今天" * 21], ["气" * 5] * 2, [0, 0])
    assert hub_example.count_cut(loaded, columns) == 0
    assert hub_example.count_cut(loaded, longest) == 1
    packed = next(iter(hub_example.pair_dataset(loaded, longest)))[0]
    ids = packed["input_word_ids"].numpy()
    assert (ids[0] > 0).all() and (ids[0] == SEP).sum() == 2


def test_the_example_pads_pairs_to_the_longest_of_their_batch(loaded):
    columns = (["今天", "今天气"] * 40, ["气"] * 80, [0, 1] * 40)
    columns[0][0] = "今" * 12
    batches = list(hub_example.pair_dataset(loaded, columns))
    widths = [inputs["input_word_ids"].shape[1] for inputs, _ in batches]
    assert widths == [12 + 1 + 3, 3 + 1 + 3, 3 + 1 + 3]
    for inputs, labels in batches:
        assert {tensor.shape for tensor in inputs.values()} == {
            (len(labels), max(inputs["input_mask"].numpy().sum(1)))
        }
