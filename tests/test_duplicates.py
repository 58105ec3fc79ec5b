"""Duplicates: found as MinHash promises, dropped the same way everywhere."""

import random

import numpy as np
import pytest
from test_build_pretraining_data import files_of, rows_of
from test_spark_build import Context

from albert_tf2.data import (
    build_pretraining_data,
    duplicates,
    part_files,
    spark_build,
    workers,
)
from albert_tf2.data.build_config import BuildConfig
from albert_tf2.data.documents import documents_of_tokens
from albert_tf2.text.bulk_tokenization import BulkTokenizer
from albert_tf2.text.tokenization import Tokenizer, Vocabulary

CHARACTERS = [chr(code) for code in range(0x4E00, 0x4E00 + 2000)]
VOCABULARY = Vocabulary(
    [*"[PAD] [UNK] [CLS] [SEP] [MASK] 。 ，".split(), *CHARACTERS]
)
BULK = BulkTokenizer(Tokenizer(VOCABULARY))
IS_WORD = duplicates.words_of(VOCABULARY)


def keys_of(documents):
    text = "\n\n".join(documents) + "\n"
    tokens = BULK.tokenize(text)
    found = documents_of_tokens(text, tokens)
    return duplicates.keys_of(text, tokens, found, IS_WORD)


def text_of(rng, length):
    return "".join(rng.choices(CHARACTERS, k=length))


@pytest.mark.parametrize("shared", [0.3, 0.6, 0.8, 0.9])
@pytest.mark.parametrize("length", [200, 2000])
def test_pairs_are_found_as_often_as_promised(shared, length):
    rng = random.Random(length)
    count = 200
    documents = []
    for _ in range(count):
        # Two documents that begin alike share this part of their 5-grams.
        same = round(2 * shared * length / (1 + shared))
        first = text_of(rng, length)
        documents += [first, first[:same] + text_of(rng, length - same)]
    near = keys_of(documents).near
    found = [(near[i] == near[i + 1]).any() for i in range(0, 2 * count, 2)]
    promised = 1 - (1 - shared**8) ** 16
    spread = 4 * (promised * (1 - promised) / count) ** 0.5 + 0.05
    assert abs(np.mean(found) - promised) < spread
    # Others share nothing.
    others = [(near[i] == near[i + 3]).any() for i in range(0, 2 * count - 3)]
    assert not any(others)


def test_short_documents_are_compared_too():
    documents = [
        "一二",
        "一三",
        "一二",
        "丁七丈三上",
        "丁七丈三下",
        "",
        "。。",
        "，",
    ]
    keys = keys_of([d for d in documents if d])
    same = [
        (i, j)
        for i in range(7)
        for j in range(i)
        if (keys.near[i] == keys.near[j]).any()
    ]
    assert same == [(2, 0)]
    assert len(set(keys.exact.tolist())) == 6


def test_signs_and_spaces_do_not_count():
    rng = random.Random(4)
    text = text_of(rng, 100)
    spaced = "，".join(text[i : i + 9] for i in range(0, 100, 9)) + " 。"
    keys = keys_of([text, spaced, f" {text} "])
    assert (keys.near[0] == keys.near[1]).all()
    assert keys.exact[0] != keys.exact[1]
    assert keys.exact[0] == keys.exact[2]


def test_what_repeats_a_key_is_found():
    rng = random.Random(8)
    pairs = [(rng.randrange(40), rng.randrange(200)) for _ in range(150)]
    blocks = np.array(pairs, "<u8")
    halves = [blocks[:70].tobytes(), blocks[70:].tobytes()]
    first = {}
    for key, document in sorted(pairs):
        first.setdefault(key, document)
    expected = sorted({d for k, d in pairs if d != first[k]})
    assert duplicates.repeated(halves).tolist() == expected
    assert duplicates.repeated([]).tolist() == []


def test_documents_are_numbered_in_the_order_of_the_corpus():
    places = [(f, u, d) for f in (0, 1, 9) for u in (0, 5) for d in (0, 3)]
    numbers = [duplicates.document_id(*place) for place in places]
    assert numbers == sorted(numbers)
    exact = np.array(numbers[1:4], np.uint64)
    near = np.array(numbers[8:9], np.uint64)
    dropped = duplicates.Dropped.of(
        [("near", near), ("exact", exact), ("near", exact[:1])]
    )
    assert dropped.counts() == {"exact": 3, "near": 1}
    assert dropped.in_unit(0, 0) == ((3, "exact"),)
    assert dropped.in_unit(0, 5) == ((0, "exact"), (3, "exact"))
    assert dropped.in_unit(9, 0) == ((0, "near"),)
    assert dropped.in_unit(1, 5) == ()


@pytest.fixture
def corpus(tmp_path):
    """Documents, copies and near copies over three files."""
    rng = random.Random(1)
    originals = [
        [text_of(rng, rng.randrange(8, 30)) + "。" for _ in range(12)]
        for _ in range(60)
    ]
    copies = rng.sample(originals, 15)
    others = [d for d in originals if d not in copies]
    nearly = [[*d[:-1], text_of(rng, 6) + "。"] for d in rng.sample(others, 10)]
    documents = [*originals, *copies, *nearly]
    for number in range(3):
        text = "\n\n".join("\n".join(d) for d in documents[number::3])
        (tmp_path / f"{number}.txt").write_text(text + "\n", "utf-8")
    (tmp_path / "vocab.txt").write_text(
        "\n".join(VOCABULARY.tokens) + "\n", "utf-8"
    )
    return f"{tmp_path}/[012].txt"


def plan_of(corpus, tmp_path, name, **settings):
    return build_pretraining_data.make_plan(
        corpus, f"{tmp_path}/vocab.txt", f"{tmp_path}/{name}",
        BuildConfig(max_seq_length=64, num_shards=3, eval_fraction=0.1,
                    segmenter="none", unit_bytes=2000, **settings),
    )  # fmt: skip


def one_worker():
    return workers.Workers(1, progress=False)


@pytest.mark.parametrize(
    "kind, left", [("none", 85), ("exact", 70), ("near", 60)]
)
def test_duplicates_are_dropped_and_counted(corpus, tmp_path, kind, left):
    plan = plan_of(corpus, tmp_path, "out", drop_duplicates=kind)
    counts = build_pretraining_data.build(plan, one_worker())["counts"]
    assert counts["documents"] == left
    assert counts["train_documents"] + counts["eval_documents"] == left
    assert counts.get("dropped_exact_duplicates", 0) == (
        0 if kind == "none" else 15
    )
    assert counts.get("dropped_near_duplicates", 0) == (
        10 if kind == "near" else 0
    )
    assert not (tmp_path / "out" / ".parts").exists()


def test_the_same_bytes_for_any_number_of_workers_and_on_spark(
    corpus, tmp_path
):
    pools = {
        "one": one_worker(),
        "three": workers.Workers(3, progress=False),
        "spark": spark_build.SparkPool(Context()),
    }
    built = {}
    for name, pool in pools.items():
        plan = plan_of(corpus, tmp_path, name, drop_duplicates="near")
        build_pretraining_data.build(plan, pool)
        built[name] = files_of(tmp_path / name)
    assert built["one"] == built["three"] == built["spark"]


def test_what_is_kept_does_not_change(corpus, tmp_path):
    """Dropping documents leaves the pairs of the others as they were."""

    def pairs(kind):
        plan = plan_of(corpus, tmp_path, kind, drop_duplicates=kind)
        manifest = build_pretraining_data.build(plan, one_worker())
        return {
            (*a.tolist(), -1, *b.tolist())
            for row in rows_of(tmp_path / kind, manifest)
            for a, b in row
        }

    everything, kept = pairs("none"), pairs("near")
    assert kept < everything


def test_a_set_without_duplicates_can_be_repaired_and_resumed(
    corpus, tmp_path, monkeypatch
):
    plan = plan_of(corpus, tmp_path, "out", drop_duplicates="near")
    build_pretraining_data.build(plan, one_worker())
    expected = files_of(tmp_path / "out")
    victim = tmp_path / "out" / "records-00001-of-00003.tfrecord"
    victim.unlink()
    build_pretraining_data.verify(str(tmp_path / "out"), one_worker())
    assert files_of(tmp_path / "out") == expected

    def stop(*_):
        raise KeyboardInterrupt

    plan = plan_of(corpus, tmp_path, "again", drop_duplicates="near")
    monkeypatch.setattr(build_pretraining_data.shards, "write_manifest", stop)
    with pytest.raises(KeyboardInterrupt):
        build_pretraining_data.build(plan, one_worker())
    monkeypatch.undo()
    made = []
    write_part = part_files.write_part
    monkeypatch.setattr(
        part_files, "write_part",
        lambda path, part: made.append(path) or write_part(path, part),
    )  # fmt: skip
    build_pretraining_data.build(plan, one_worker())
    assert not made and files_of(tmp_path / "again") == expected


def test_documents_of_few_chinese_characters(tmp_path):
    text = (
        "我们在这里写中文。\n今天天气很好。\n\n"
        "This is English text.\nNothing else.\n\n"
        "一半 half 一半 half\nab 中文 cd 文字\n"
    )
    (tmp_path / "a.txt").write_text(text, "utf-8")
    tokens = sorted(set(text.lower()) - set(" \n"))
    tokens += [f"##{t}" for t in tokens]
    (tmp_path / "vocab.txt").write_text(
        "\n".join([*"[PAD] [UNK] [CLS] [SEP] [MASK]".split(), *tokens]) + "\n",
        "utf-8",
    )
    found = []
    for share in (0.0, 0.2, 0.6):
        plan = plan_of(
            f"{tmp_path}/a.txt", tmp_path, f"{share}", min_han_share=share
        )
        counts = build_pretraining_data.build(plan, one_worker())["counts"]
        assert counts["few_han_documents"] == 1
        found.append((counts["documents"], counts.get("dropped_few_han", 0)))
    assert found == [(3, 0), (2, 1), (1, 2)]


def test_html_and_repeated_lines_go_by_flag(tmp_path):
    text = (
        "第一句话在这里，很长。&nbsp;<br/>\n第二句。\n第一句话在这里，很长。\n"
    )
    (tmp_path / "a.txt").write_text(text, "utf-8")
    (tmp_path / "vocab.txt").write_text(
        "\n".join(
            [*"[PAD] [UNK] [CLS] [SEP] [MASK]".split(),
             *sorted(set(text) - {"\n"})]
        ) + "\n", "utf-8",
    )  # fmt: skip

    def counts(**settings):
        name = f"out{len(settings)}"
        plan = plan_of(f"{tmp_path}/a.txt", tmp_path, name, **settings)
        return build_pretraining_data.build(plan, one_worker())["counts"]

    plain = counts()
    assert (plain["html_left_overs"], plain["repeated_lines"]) == (2, 0)
    assert plain["sentences"] == 3
    clean = counts(strip_html=True, drop_repeated_lines=True)
    assert (clean["html_left_overs"], clean["repeated_lines"]) == (2, 1)
    assert clean["sentences"] == 2 and clean["documents"] == 1
    assert clean["tokens"] == 15
