"""Tagging: files, tags on tokens through offsets, exact F1."""

import itertools

import numpy as np
import pytest
from task_samples import ENTITIES, write_cluener, write_lines, write_vocab

from albert_tf2.errors import UserError
from albert_tf2.tasks import base, bio, registry
from albert_tf2.tasks.bio import Entity
from albert_tf2.tasks.reading import ReadingReport
from albert_tf2.text.tokenization import Tokenizer


def perfect_logits(task, examples):
    """Logits that say each example's own labels."""
    return [
        np.eye(len(task.labels))[np.maximum(example.label, 0)] * 9
        for example in examples
    ]


def test_cluener_spans_become_half_open(tmp_path):
    task = registry.create("cluener")
    rows = task.read(write_cluener(tmp_path), "train")
    assert rows[0].entities == (
        Entity(0, 4, "company"),
        Entity(4, 7, "name"),
    )
    test_rows = task.read(tmp_path, "test")
    assert [row.entities for row in test_rows] == [None] * len(ENTITIES)


@pytest.mark.parametrize(
    "label, reason",
    [
        ({"name": {"老桂": [[4, 6]]}}, "does not stand at"),
        ({"nickname": {"叶": [[4, 4]]}}, "entity type 'nickname'"),
        ({"name": ["叶老桂"]}, "must be {type"),
        (None, "has no entities"),
        (
            {"name": {"叶": [["4", "4"]]}},
            "must be a whole number. Received: '4'",
        ),
        ({"name": {"叶": [[4, True]]}}, "must be a whole number"),
        ({"name": {"叶": [[4]]}}, "must be {type"),
        ({"name": {"": [[9, 8]]}}, "in a text of 8 characters"),
    ],
)
def test_bad_spans_are_named(tmp_path, label, reason):
    row = {"text": "浙商银行叶老桂说", "label": label}
    path = write_lines(tmp_path / "train.json", [ENTITIES[0], row])
    task = registry.create("cluener")
    with pytest.raises(UserError) as error:
        task.read(tmp_path, "train")
    assert f"{path}, line 2: " in str(error.value)
    assert reason in str(error.value)
    report = ReadingReport()
    rows = task.read(tmp_path, "train", on_error="skip", report=report)
    assert len(rows) == 1 and reason in report.bad[0]


def test_column_files(tmp_path):
    (tmp_path / "train.txt").write_text(
        "叶 B-PER\n老 I-PER\n说 O\n\nJohn B-PER\nSmith E-PER\n在 O\n"
        "北 S-LOC\n\n\n",
        "utf-8",
    )
    task = registry.create("bio")
    task.prepare(tmp_path, on_error="fail")
    assert task.types == ("LOC", "PER")
    rows = task.read(tmp_path, "train")
    assert rows[0].text == "叶老说"
    assert rows[1].text == "John Smith在北"
    assert rows[1].entities == (Entity(0, 10, "PER"), Entity(11, 12, "LOC"))
    again = registry.from_description(task.describe())
    assert again.labels == task.labels
    (tmp_path / "dev.txt").write_text("叶 B-PER\n老\n", "utf-8")
    with pytest.raises(UserError, match="dev.txt, line 2: '老' has no tag"):
        task.read(tmp_path, "dev")


def test_tags_through_offsets_and_back(tmp_path):
    """One token may hold several characters; a span may begin inside it."""
    tokenizer = Tokenizer(write_vocab(tmp_path))
    text = "  ALBERT去 北京 12"
    encoding = tokenizer.tokenize(text)
    entities = [
        Entity(2, 8, "game"),
        Entity(text.index("北"), text.index("京") + 1, "scene"),
    ]
    tags = bio.token_tags(encoding.offsets, entities)
    assert tags[: len(encoding.tokens)] == [
        "B-game", "I-game", "O", "B-scene", "I-scene", "O",
    ]  # fmt: skip
    assert list(bio.spans_of(tags, encoding.offsets)) == entities


def test_of_overlapping_entities_the_earlier_keeps_its_tokens():
    offsets = [(i, i + 1) for i in range(5)]
    entities = [Entity(2, 5, "book"), Entity(0, 3, "name")]
    tags = bio.token_tags(offsets, entities)
    assert tags == ["B-name", "I-name", "I-name", "B-book", "I-book"]


def test_an_entity_is_as_sure_as_its_least_sure_token(tmp_path):
    tokenizer = Tokenizer(write_vocab(tmp_path))
    task = registry.create("cluener")
    rows = task.read(write_cluener(tmp_path), "train")[2:3]
    lengths = base.Lengths(max_seq_length=32)
    (example,) = task.encode(rows, tokenizer, lengths)
    logits = perfect_logits(task, [example])
    logits[0][2] /= 3  # 明, the second token of 小明
    (prediction,) = task.decode(rows, [example], logits, lengths)
    share = base.softmax(logits[0][2])[example.label[2]]
    assert prediction["entities"][0]["probability"] == round(share, 6)
    assert share < base.softmax(logits[0][1])[example.label[1]]


def test_windows_of_a_long_text_overlap(tmp_path):
    """A token is decided where it has context on both sides."""
    tokenizer = Tokenizer(write_vocab(tmp_path))
    task = registry.create("cluener")
    row = {"text": "今天天气很好" * 4, "label": {}}
    write_lines(tmp_path / "train.json", [row])
    rows = task.read(tmp_path, "train")
    lengths = base.Lengths(max_seq_length=14, doc_stride=128)
    examples = task.encode(rows, tokenizer, lengths)
    windows = [e.origin.window for e in examples]
    assert [(w.start, w.end) for w in windows] == [(0, 12), (6, 18), (12, 24)]
    assert [w.first_owned for w in windows] == [0, 9, 15]
    # And it is learned there alone.
    learned = [sum(tag >= 0 for tag in e.label) for e in examples]
    assert learned == [9, 6, 9]


def test_neighbours_of_one_type_stay_apart():
    offsets = [(i, i + 1) for i in range(4)]
    entities = [Entity(0, 2, "name"), Entity(2, 4, "name")]
    tags = bio.token_tags(offsets, entities)
    assert tags == ["B-name", "I-name", "B-name", "I-name"]
    assert list(bio.spans_of(tags, offsets)) == entities


def test_an_i_of_another_type_begins_an_entity():
    offsets = [(i, i + 1) for i in range(3)]
    found = list(bio.spans_of(["B-name", "I-book", "I-book"], offsets))
    assert found == [Entity(0, 1, "name"), Entity(1, 3, "book")]


@pytest.mark.parametrize("seed", range(5))
def test_best_tags_against_all_paths(seed):
    labels = bio.bio_labels(["x", "y"])
    scores = np.random.default_rng(seed).normal(size=[4, len(labels)])

    def allowed(path):
        tags = ["O"] + [labels[i] for i in path]
        return all(
            not b.startswith("I-") or a[1:] == b[1:]
            for a, b in itertools.pairwise(tags)
        )

    paths = filter(allowed, itertools.product(range(len(labels)), repeat=4))
    best = max(paths, key=lambda p: sum(scores[i, t] for i, t in enumerate(p)))
    assert bio.best_tags(scores, labels) == list(best)


def test_metrics_against_counting_triples():
    rng = np.random.default_rng(1)

    def draw():
        return {
            Entity(int(s), int(s) + 2, "xy"[int(t)])
            for s, t in zip(
                rng.integers(0, 6, 3), rng.integers(0, 2, 3), strict=True
            )
        }

    pairs = [(draw(), draw()) for _ in range(50)]
    gold = {(i, *e) for i, (g, _) in enumerate(pairs) for e in g}
    predicted = {(i, *e) for i, (_, p) in enumerate(pairs) for e in p}

    def f1(kinds):
        a = {e for e in gold if e[3] in kinds}
        b = {e for e in predicted if e[3] in kinds}
        precision, recall = len(a & b) / len(b), len(a & b) / len(a)
        return 2 * precision * recall / (precision + recall)

    figures = bio.entity_metrics(pairs)
    assert figures["f1"] == pytest.approx(f1("xy"))
    assert figures["macro_f1"] == pytest.approx((f1("x") + f1("y")) / 2)
    assert figures["precision"] == pytest.approx(
        len(gold & predicted) / len(predicted)
    )


@pytest.mark.parametrize("max_seq_length", [64, 12, 7])
def test_long_texts_are_read_in_windows(tmp_path, max_seq_length):
    """Right logits give the right entities back, however the text is cut."""
    tokenizer = Tokenizer(write_vocab(tmp_path))
    task = registry.create("cluener")
    text = "今天天气很好，浙商银行叶老桂说他去学校上课。" * 2
    start = text.rindex("浙")
    row = {
        "text": text,
        "label": {
            "company": {"浙商银行": [[7, 10], [start, start + 3]]},
            "name": {"叶老桂": [[11, 13], [start + 4, start + 6]]},
        },
    }
    write_lines(tmp_path / "train.json", [row, *ENTITIES])
    rows = task.read(tmp_path, "train")
    lengths = base.Lengths(max_seq_length=max_seq_length, doc_stride=3)
    examples = task.encode(rows, tokenizer, lengths)
    logits = perfect_logits(task, examples)
    predictions = task.decode(rows, examples, logits, lengths)
    assert task.score(rows, predictions)["f1"] == 1.0
    assert predictions[0]["entities"][0]["text"] == "浙商银行"
    assert predictions[0]["entities"][0]["probability"] > 0.9


def test_real_files(shared):
    """All spans of the real CLUENER survive the way through tokens."""
    tokenizer = Tokenizer(shared / "datasets" / "vocab" / "vocab.txt")
    task = registry.create("cluener")
    rows = task.read(shared / "datasets" / "cluener", "dev")
    assert len(rows) == 1343
    rows = rows[:300]
    lengths = base.Lengths(max_seq_length=64)
    examples = task.encode(rows, tokenizer, lengths)
    logits = perfect_logits(task, examples)
    predictions = task.decode(rows, examples, logits, lengths)
    # A few spans begin or end inside a WordPiece, or overlap.
    assert task.score(rows, predictions)["f1"] > 0.99
