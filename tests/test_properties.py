"""What holds for any input: tokens, windows, rows, tags, manifests, resuming.

Splitters have theirs in test_sentences.py and test_cleaning.py, masks in
test_masking.py, fine-tuned folders in test_bundle.py.
"""

import copy
import itertools
import json
import random
import types

import hypothesis
import numpy as np
from checks import changed
from hypothesis import strategies as st
from test_bulk_tokenization import VOCABULARY, assert_same

from albert_tf2.data import segments, shards
from albert_tf2.errors import UserError
from albert_tf2.records import pipeline
from albert_tf2.tasks import bio, encoding
from albert_tf2.text.bulk_tokenization import BulkTokenizer
from albert_tf2.text.text_settings import TextSettings
from albert_tf2.text.tokenization import Tokenizer

few = hypothesis.settings(max_examples=60)
texts = st.text(
    st.sampled_from(
        "ab1 .'，。中国ΣσÉé\u0301 \u3000\x00\u200b\ufffdＡ…“\U0001f600"
    )
    | st.characters(exclude_characters="\n"),
    max_size=30,
)
TOKENIZERS = [
    Tokenizer(VOCABULARY, TextSettings(do_lower_case=lower, normalize=fold))
    for lower, fold in itertools.product((True, False), repeat=2)
]
BULK = [BulkTokenizer(tokenizer) for tokenizer in TOKENIZERS]


@few
@hypothesis.given(texts, st.integers(0, 3))
def test_tokens_stand_in_their_order_where_offsets_say(text, number):
    tokenizer = TOKENIZERS[number]
    tokens, ids, offsets = tokenizer.tokenize(text)
    assert len(tokens) == len(ids) == len(offsets)
    assert [tokenizer.vocabulary.tokens[i] for i in ids] == list(tokens)
    assert all(0 <= start < end <= len(text) for start, end in offsets)
    for before, here in itertools.pairwise(offsets):
        # Of one character there may be several tokens: `…` folded is three.
        assert before[1] <= here[0] or before == here
    # What no token covers is nothing: spaces, and what is removed.
    covered = {i for start, end in offsets for i in range(start, end)}
    rest = "".join(c for i, c in enumerate(text) if i not in covered)
    assert tokenizer.tokenize(rest).ids == []
    assert_same(BULK[number], tokenizer, text)


@few
@hypothesis.given(st.integers(1, 300), st.integers(1, 40), st.data())
def test_each_token_is_owned_by_one_window(length, size, data):
    stride = data.draw(st.integers(1, size))
    windows = encoding.windows(length, size, stride)
    owned = [i for w in windows for i in range(w.first_owned, w.last_owned)]
    assert owned == list(range(length))
    for window in windows:
        assert 0 < window.end - window.start <= size
        assert window.start <= window.first_owned
        assert window.last_owned <= window.end


@few
@hypothesis.given(st.lists(st.integers(0, 50), max_size=5), st.integers(0, 99))
def test_texts_share_a_budget_the_longest_giving_first(lengths, budget):
    kept = encoding.shares(lengths, budget)
    assert sum(kept) == min(budget, sum(lengths))
    for (one, before), (other, _) in itertools.product(
        zip(kept, lengths, strict=True), repeat=2
    ):
        assert 0 <= one <= before
        assert one == before or one >= other - 1


@few
@hypothesis.given(st.lists(st.integers(1, 64), max_size=60), st.integers(1, 8))
def test_rows_hold_each_pair_once_and_fit(costs, max_pairs):
    rows = segments.pack(costs, row_size=64, max_pairs=max_pairs)
    assert sorted(i for row in rows for i in row) == list(range(len(costs)))
    for row in rows:
        assert row == sorted(row) and len(row) <= max_pairs
        assert sum(costs[i] for i in row) <= 64
    # Best fit leaves no two rows that one could hold.
    if max_pairs == 8:
        sums = sorted(sum(costs[i] for i in r) for r in rows if len(r) < 4)
        assert all(a + b > 64 for a, b in itertools.pairwise(sums))


LABELS = bio.bio_labels(("PER", "LOC"))
tags = st.lists(st.sampled_from(LABELS), max_size=20)


@few
@hypothesis.given(tags)
def test_tags_and_entities_both_ways(found):
    offsets = [(2 * i, 2 * i + 1) for i in range(len(found))]
    entities = list(bio.spans_of(found, offsets))
    again = bio.token_tags(offsets, entities)
    assert list(bio.spans_of(again, offsets)) == entities
    # Only an I- without its B- is written otherwise.
    for tag, other in zip(found, again, strict=True):
        assert tag == other or other == f"B-{tag[2:]}"


@few
@hypothesis.given(st.integers(0, 2**32 - 1), st.integers(0, 12))
def test_the_best_tags_are_tags_that_may_follow(seed, length):
    scores = np.random.default_rng(seed).normal(size=[length, len(LABELS)])
    path = [LABELS[i] for i in bio.best_tags(scores, LABELS)]
    assert len(path) == length
    for before, tag in itertools.pairwise(["O", *path]):
        assert not tag.startswith("I-") or before[2:] == tag[2:]


MANIFEST = {
    "counts": {"documents": 3, "tokens": 70},
    "shards": [
        {
            "name": "records-00000-of-00001.tfrecord",
            "subset": "train",
            "records": 2,
            "bytes": 200,
            "sha256": "0" * 64,
        }
    ],
    "identity": {"config": {"max_seq_length": 64}},
    "max_seq_length": 64,
    "vocab_sha256": "1" * 64,
}


def test_a_manifest_is_read_or_refused(tmp_path):
    path, rng, read = tmp_path / "manifest.json", random.Random(0), 0
    for number in range(200):
        given = changed(copy.deepcopy(MANIFEST), rng) if number else MANIFEST
        path.write_text(json.dumps(given))
        try:
            found = shards.read_manifest(str(tmp_path))
        except UserError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            continue
        read += 1
        # Whoever reads it relies on these.
        assert all(isinstance(e["records"], int) for e in found["shards"])
        assert isinstance(found["identity"], dict)
    assert 1 < read < 200


@few
@hypothesis.given(
    st.lists(st.integers(1, 9), min_size=1, max_size=7),
    st.integers(1, 20),
    st.integers(0, 200),
)
def test_a_run_finds_its_place_at_any_step(counts, shuffle_buffer, row):
    """Skipping whole windows and then rows comes to the row itself."""
    records = types.SimpleNamespace(
        counts=counts, records=sum(counts), starts=None
    )
    windows = pipeline._Windows(records, 3, shuffle_buffer)
    window, skipped = windows.locate(row)
    rows = 0
    for number in range(window):
        epoch, place = divmod(number, windows.per_epoch)
        parts = windows.order(np.int64(epoch)).numpy()
        first = place * windows.per_window
        rows += windows.counts[parts[first : first + windows.per_window]].sum()
    assert rows + skipped == row
    epoch, place = divmod(window, windows.per_epoch)
    parts = windows.order(np.int64(epoch)).numpy()
    first = place * windows.per_window
    here = windows.counts[parts[first : first + windows.per_window]].sum()
    assert 0 <= skipped < here
