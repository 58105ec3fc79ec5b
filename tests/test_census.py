"""Documents longer than a unit are held out whole, or not at all."""

import collections
import gzip

import hypothesis
import pytest
from hypothesis import strategies as st

from albert_tf2.data import build_pretraining_data, census, parts, workers
from albert_tf2.data.build_config import BuildConfig
from albert_tf2.data.records import read_records

SPECIALS = "[PAD] [UNK] [CLS] [SEP] [MASK]".split()
FIRST = 0x4E00  # every document has a character of its own


def test_the_subset_runs_on_through_the_parts():
    """The example of the module's docstring, and what it counts."""
    found = census.Census()
    joints = [
        parts.Joint(False, True, "train", "train"),
        parts.Joint(True, True, "train", "eval"),
        parts.Joint(True, True, "train", None),
        parts.Joint(True, False, "train", "train"),
    ]
    joints[1] = joints[1]._replace(begins_inside=False)
    for number, joint in enumerate(joints):
        head = parts.Head({"documents": 1}, joint, continued=number)
        found.add((0, number), head)
    assert found.close() == {(0, 2): "eval", (0, 3): "eval"}
    assert found.counts["eval_records"] == 2 + 3
    assert found.counts["documents_split"] == 2
    assert found.by_file[0][0] == 4


def test_a_border_between_two_units_begins_a_document():
    found = census.Census()
    found.add((3, 0), parts.Head({}, parts.Joint(False, False, "eval", "eval")))
    joint = parts.Joint(True, False, "train", None)
    found.add((3, 1), parts.Head({}, joint, continued=7))
    assert found.close() == {(3, 1): "train"}
    assert found.counts["train_records"] == 7
    assert found.counts["documents"] == found.counts["train_documents"] == 1
    assert found.counts["documents_split"] == 0
    assert found.by_file[3][0] == 1


def test_the_inside_of_a_giant_line_hands_the_subset_on():
    found = census.Census()
    inside = parts.Joint(True, True)
    found.add((0, 0), parts.Head({}, parts.Joint(False, True, "train", "eval")))
    found.add((0, 1), parts.Head({}, inside))
    found.add((0, 2), parts.Head({}, parts.Joint(True, False, "train")))
    assert found.close() == {(0, 1): "eval", (0, 2): "eval"}
    # Nothing runs on from one file into the next.
    found.add((0, 3), parts.Head({}, parts.Joint(False, True, "train", "eval")))
    found.add((1, 0), parts.Head({}, parts.Joint(True, False, "train")))
    assert found.close() == {(1, 0): "train"}


def test_it_does_not_matter_who_counted_what():
    heads = [
        ((f, u), parts.Head({"documents": f + u}, parts.Joint(u > 0, True), u))
        for f in range(2)
        for u in range(3)
    ]
    whole = census.Census()
    halves = census.Census(), census.Census()
    for number, (place, head) in enumerate(heads):
        whole.add(place, head)
        halves[number % 2].add(place, head)
    halves[1].merge(halves[0])
    assert halves[1].close() == whole.close()
    assert halves[1].counts == whole.counts
    assert halves[1].by_file == whole.by_file


# A document: its sentences; the blank lines after it.
documents = st.lists(
    st.tuples(
        st.lists(st.integers(1, 90), min_size=1, max_size=9),
        st.sampled_from(["\n", "\n\n", " \n", "\r\n", "　\n\n", "\n\u200b\n"]),
    ),
    min_size=1,
    max_size=12,
)


@pytest.fixture(scope="module")
def vocab_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocab") / "vocab.txt"
    characters = map(chr, range(FIRST, FIRST + 12))
    path.write_text("\n".join([*SPECIALS, *characters]) + "\n", "utf-8")
    return str(path)


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(
    documents, st.sampled_from([64, 100, 256]), st.sampled_from(["", ".gz"])
)
def test_documents_are_held_out_whole(
    vocab_file, tmp_path_factory, found, unit_bytes, ending
):
    folder = tmp_path_factory.mktemp("build")
    text = "".join(
        "".join(chr(FIRST + number) * length + "\n" for length in lengths)
        + border
        for number, (lengths, border) in enumerate(found)
    )
    data = gzip.compress(text.encode()) if ending else text.encode()
    (folder / f"a.txt{ending}").write_bytes(data)
    config = BuildConfig(
        max_seq_length=24, num_shards=3, eval_fraction=0.5,
        segmenter="none", unit_bytes=unit_bytes,
    )  # fmt: skip
    plan = build_pretraining_data.make_plan(
        f"{folder}/a.txt{ending}", vocab_file, f"{folder}/out", config
    )
    hypothesis.assume(sum(map(sum, (d[0] for d in found))) > 1)
    tokens = sum(sum(lengths) for lengths, _ in found)
    try:
        manifest = build_pretraining_data.build(
            plan, workers.Workers(1, progress=False)
        )
    except build_pretraining_data.UserError:
        assert all(sum(lengths) < 2 for lengths, _ in found)
        return
    counts = manifest["counts"]
    subsets = collections.defaultdict(set)
    stored = 0
    for entry in manifest["shards"]:
        for data in read_records(f"{folder}/out/{entry['name']}"):
            ids = ids_of(data)
            stored += len(ids)
            for token in ids:
                subsets[token].add(entry["subset"])
    assert all(len(where) == 1 for where in subsets.values())
    assert counts["documents"] == len(found)
    drawn = [counts.get(f"{s}_documents", 0) for s in ("train", "eval")]
    assert sum(drawn) == counts["documents"]
    assert stored == tokens - counts["dropped_tokens"]
    assert counts["sentences"] == sum(len(lengths) for lengths, _ in found)


def ids_of(data):
    """Returns the token ids of a compact record."""
    import numpy as np
    import tensorflow as tf

    feature = tf.train.Example.FromString(data).features.feature
    raw = feature["tokens"].bytes_list.value[0]
    return (np.frombuffer(raw, "<u2") & 0x7FFF).tolist()
