"""Classification: reading its files, packing, the head, its figures."""

import json

import numpy as np
import pytest
from task_samples import PAIRS, write_lcqmc, write_lines, write_vocab

from albert_tf2.errors import UserError
from albert_tf2.tasks import base, encoding, registry, text_rows
from albert_tf2.tasks.classification import (
    classification_metrics,
    label_order,
)
from albert_tf2.tasks.reading import ReadingReport
from albert_tf2.text.tokenization import Tokenizer


def read(name, folder, split="train", **settings):
    report = ReadingReport()
    on_error = settings.pop("on_error", "fail")
    task = registry.create(name, **settings)
    task.prepare(folder, on_error=on_error)
    return task.read(folder, split, on_error=on_error, report=report), report


def test_lcqmc_with_and_without_header_and_bom(tmp_path):
    with_header, _ = read("lcqmc", write_lcqmc(tmp_path / "a"))
    (tmp_path / "b").mkdir()
    body = "".join("\t".join(pair) + "\r\n" for pair in PAIRS)
    (tmp_path / "b" / "train.txt").write_bytes(b"\xef\xbb\xbf" + body.encode())
    without, _ = read("lcqmc", tmp_path / "b")
    assert with_header == without
    assert (without[0].text_a, without[0].text_b) == PAIRS[0][:2]
    assert [row.label for row in without] == [pair[2] for pair in PAIRS]
    assert [row.row_id for row in without] == list(range(len(PAIRS)))


def test_lcqmc_line_separators_and_quotes_are_characters(tmp_path):
    (tmp_path / "train.txt").write_text('他说"好\u2028了\r吧\t好\t1\n', "utf-8")
    rows, _ = read("lcqmc", tmp_path)
    assert rows[0].text_a == '他说"好\u2028了\r吧'


@pytest.mark.parametrize(
    "line, reason",
    [
        ("甲\t乙", "field `label` is missing"),
        ("甲 乙 1", "Received: 1 columns"),
        ("甲\t乙\t2", "label '2' is not one of 0, 1"),
    ],
)
def test_a_bad_row_is_named_or_skipped(tmp_path, line, reason):
    path = tmp_path / "train.txt"
    path.write_text(f"甲\t乙\t1\n{line}\n丙\t丁\t0\n", "utf-8")
    with pytest.raises(UserError) as error:
        read("lcqmc", tmp_path)
    assert f"{path}, line 2: " in str(error.value)
    assert reason in str(error.value)
    rows, report = read("lcqmc", tmp_path, on_error="skip")
    assert [row.text_a for row in rows] == ["甲", "丙"]
    assert reason in report.bad[0]


def test_test_rows_are_never_dropped(tmp_path):
    lines = [
        '{"id": 0, "sentence1": "甲", "sentence2": "乙"}',
        '{"id": 1, "sentence1": "甲"}',
        '{"id": 2, "sentence1": "甲", "sentence2": "乙", "label": "-"}',
        "not json",
        '{"id": 4, "sentence1": "甲", "sentence2": "乙", "label": "neutral"}',
    ]
    (tmp_path / "test.json").write_text("\n".join(lines), "utf-8")
    rows, report = read("ocnli", tmp_path, "test", on_error="skip")
    assert [row.row_id for row in rows] == [0, 1, 2, 3, 4]
    assert [row.label for row in rows] == [None] * 4 + ["neutral"]
    assert len(report.bad) == 2
    with pytest.raises(UserError, match="line 2: field `sentence2`"):
        read("ocnli", tmp_path, "test")


def test_rows_without_gold_label_are_left_out(tmp_path):
    record = {"sentence1": "甲", "sentence2": "乙"}
    write_lines(
        tmp_path / "train.json",
        [{**record, "label": label} for label in ("-", "neutral")],
    )
    rows, report = read("cmnli", tmp_path)
    assert [row.label for row in rows] == ["neutral"]
    assert sum(report.dropped.values()) == 1


def test_csl_joins_keywords(tmp_path):
    write_lines(
        tmp_path / "train.json",
        [{"id": 7, "abst": "摘要", "keyword": ["甲", "乙"], "label": "1"}],
    )
    rows, _ = read("csl", tmp_path)
    assert rows == [text_rows.TextRow(7, "甲 乙", "摘要", "1")]


@pytest.mark.parametrize("pronoun_first", [False, True])
def test_wsc_marks_both_spans(pronoun_first):
    text = "他说小明去了" if pronoun_first else "小明说他去了"
    target = {
        "span1_text": "小明",
        "span1_index": text.index("小明"),
        "span2_text": "他",
        "span2_index": text.index("他"),
    }
    record = {"text": text, "target": target, "label": "true"}
    marked = text_rows.wsc_row(json.dumps(record)).text_a
    assert marked == (
        "[他]说_小明_去了" if pronoun_first else "_小明_说[他]去了"
    )
    target["span1_index"] += 1
    with pytest.raises(ValueError, match="does not stand at"):
        text_rows.wsc_row(json.dumps(record))


def test_xnli_spellings(tmp_path):
    (tmp_path / "multinli.train.zh.tsv").write_text(
        "premise\thypo\tlabel\n"
        "我 爱 deep learning 。\t他 也 爱\tcontradictory\n",
        "utf-8",
    )
    rows, _ = read("xnli", tmp_path)
    assert rows[0].text_a == "我爱deep learning。"
    assert rows[0].label == "contradiction"
    (tmp_path / "xnli.dev.tsv").write_text(
        "language\tgold_label\tsentence1\tsentence2\n"
        "en\tneutral\tHello\tWorld\nzh\tentailment\t你好\t世界\n",
        "utf-8",
    )
    rows, _ = read("xnli", tmp_path, "dev")
    assert [(r.text_a, r.text_b, r.label) for r in rows] == [
        ("你好", "世界", "entailment")
    ]


def test_label_sets():
    assert len(registry.TNEWS) == 15 and "105" not in registry.TNEWS
    assert len(registry.IFLYTEK) == 119
    assert sorted(["10", "2", "b", "a"], key=label_order) == [
        "2",
        "10",
        "a",
        "b",
    ]


def test_labels_file_replaces_the_label_set(tmp_path):
    write_lines(tmp_path / "labels.json", [{"label": "10"}, {"label": "2"}])
    write_lines(tmp_path / "train.json", [{"sentence": "甲", "label": 10}])
    task = registry.create("tnews")
    task.prepare(tmp_path, on_error="fail")
    assert task.labels == ("2", "10")
    assert task.read(tmp_path, "train")[0].label == "10"


def test_missing_file_says_what_was_looked_for(tmp_path):
    with pytest.raises(UserError, match="no dev file of task afqmc"):
        read("afqmc", tmp_path, "dev")


# --- packing


def test_shares_equal_the_originals_popping():
    def popped(a, b, budget):
        while a + b > budget:
            if a > b:
                a -= 1
            else:
                b -= 1
        return [a, b]

    for a in range(0, 30, 3):
        for b in range(0, 30, 2):
            for budget in (1, 7, 20):
                assert encoding.shares([a, b], budget) == popped(a, b, budget)
    assert sum(encoding.shares([30, 5, 30], 24)) == 24


def test_a_token_is_decided_where_it_has_most_context():
    cut = encoding.windows(10, 6, 3)
    assert [w[:2] for w in cut] == [(0, 6), (3, 9), (6, 10)]
    assert [w[2:] for w in cut] == [(0, 5), (5, 8), (8, 10)]

    def poorer_side(i, w):
        left = i - w.start if w.start else 99
        right = w.end - 1 - i if w.end < 10 else 99
        return min(left, right)

    for w in cut:
        for i in range(w.first_owned, w.last_owned):
            others = [o for o in cut if o.start <= i < o.end]
            assert poorer_side(i, w) == max(poorer_side(i, o) for o in others)


@pytest.mark.parametrize(
    "length, size, stride",
    [(9, 6, 0), (9, 6, -1), (9, 0, 1), (9, -3, -3), (9, 4, 5), (0, 0, 0)],
)
def test_windows_that_never_end_or_leave_gaps_are_refused(length, size, stride):
    with pytest.raises(UserError, match=f"`size={size}` and `stride={stride}`"):
        encoding.windows(length, size, stride)


def test_texts_without_room_are_refused(tmp_path):
    with pytest.raises(UserError, match="`budget=-1`"):
        encoding.shares([3, 4], -1)
    assert encoding.shares([3, 4], 0) == [0, 0]
    vocabulary = Tokenizer(write_vocab(tmp_path)).vocabulary
    for texts, least in ([[7]], 3), ([[7], [8, 9]], 5), ([[7], [], [8]], 6):
        for length in (-1, 0, 1, 2, least - 1):
            with pytest.raises(UserError, match=f"must be at least {least}, "):
                encoding.pack(texts, vocabulary, length)
        packed = encoding.pack(texts, vocabulary, least)
        assert len(packed.ids) == least
        assert {7, texts[-1][0]} <= set(packed.ids)


def test_windows_cover_and_own_each_token_once():
    for length in range(0, 40):
        for size, stride in ((6, 3), (7, 5), (10, 10)):
            cut = encoding.windows(length, size, stride)
            owned = [i for w in cut for i in range(w.first_owned, w.last_owned)]
            assert owned == list(range(length))
            assert all(w.end - w.start <= size for w in cut)
            assert (len(cut) == 1) == (length <= size)
            for w in cut:
                assert w.start <= w.first_owned <= w.last_owned <= w.end


def test_tokenize_all_equals_one_by_one(tmp_path, monkeypatch):
    tokenizer = Tokenizer(write_vocab(tmp_path))
    texts = ["花呗怎么还款", "", "albert 和 AL\nbert", "\u2028今天", "1212"]
    monkeypatch.setattr(encoding, "BULK_CHARACTERS", 7)
    assert encoding.tokenize_all(tokenizer, texts) == [
        tokenizer.tokenize(text).ids for text in texts
    ]


def test_pair_encoding(tmp_path):
    tokenizer = Tokenizer(write_vocab(tmp_path))
    rows, _ = read("lcqmc", write_lcqmc(tmp_path))
    example = registry.create("lcqmc").encode(
        rows[:1], tokenizer, base.Lengths(max_seq_length=11)
    )[0]
    tokens = tokenizer.ids_to_tokens(example.sequences[0].ids)
    assert tokens == "[CLS] 花 呗 怎 么 [SEP] 花 呗 如 何 [SEP]".split()
    assert example.sequences[0].type_ids == [0] * 6 + [1] * 5
    assert example.label == 1


def test_training_order_is_each_row_once_and_replays():
    lengths = np.arange(103) % 17
    order = encoding.training_order(lengths, 8, seed=3, epoch=1)
    assert sorted(np.concatenate(order)) == list(range(103))
    again = encoding.training_order(lengths, 8, seed=3, epoch=1)
    assert all(np.array_equal(a, b) for a, b in zip(order, again, strict=True))
    other = encoding.training_order(lengths, 8, seed=3, epoch=2)
    assert not np.array_equal(np.concatenate(order), np.concatenate(other))
    longest = [lengths[batch].max() for batch in order]
    assert longest != sorted(longest)  # alike within a batch, not in a row
    assert max(np.ptp(lengths[batch]) for batch in order) <= 2


# --- figures and head


def test_metrics_against_a_confusion_matrix():
    rng = np.random.default_rng(0)
    gold, predicted = rng.integers(0, 4, [2, 200])
    matrix = np.zeros([4, 4])
    np.add.at(matrix, (gold, predicted), 1)
    hits = np.diag(matrix)
    f1 = 2 * hits / (matrix.sum(0) + matrix.sum(1))
    figures = classification_metrics(
        [(str(g), str(p)) for g, p in zip(gold, predicted, strict=True)]
    )
    assert figures["accuracy"] == pytest.approx(hits.sum() / 200)
    assert figures["macro_f1"] == pytest.approx(f1.mean())
    assert classification_metrics([]) == {}
    # A label that is nowhere right counts, though it was guessed alone.
    alone = classification_metrics([("a", "a"), ("a", "b")])
    assert alone["macro_f1"] == pytest.approx((2 / 3 + 0) / 2)


@pytest.mark.parametrize("layout", ["brightmart_postln_toy", "google_toy"])
def test_head_reproduces_the_originals(golden_folder, layout):
    from albert_tf2 import checkpoints
    from albert_tf2.finetuning.model import TaskHead, TaskModel, loss_sum
    from albert_tf2.model.albert import AlbertEncoder

    folder = golden_folder / "classifier" / layout
    golden = np.load(folder / "golden.npz")
    with pytest.warns(UserWarning, match="head"):
        pretrainer = checkpoints.load_pretrained(folder)
    weights = checkpoints.read_weights(folder)
    assert isinstance(pretrainer.encoder, AlbertEncoder)
    head = TaskHead(3, weights.config.hidden_size)
    head.output_weights.assign(weights.task_arrays["output_weights"])
    head.output_bias.assign(weights.task_arrays["output_bias"])
    model = TaskModel(pretrainer.encoder, head, base.CLASSIFICATION)
    logits = model(
        {
            "input_word_ids": golden["input_ids"],
            "input_mask": golden["input_mask"],
            "input_type_ids": golden["segment_ids"],
        }
    )
    np.testing.assert_allclose(
        base.softmax(logits.numpy()), golden["probabilities"], atol=2e-5
    )
    total = loss_sum(
        base.CLASSIFICATION, logits, golden["labels"], np.ones(4, np.float32)
    )
    np.testing.assert_allclose(total / 4, golden["loss"], atol=1e-5)
