"""Masks and sentence order: properties over many seeds, rates, replay."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from albert_tf2 import features
from albert_tf2.errors import UserError
from albert_tf2.records import draws, masking
from albert_tf2.text.tokenization import Vocabulary

HAN = [chr(0x4E00 + i) for i in range(60)]
VOCABULARY = Vocabulary(
    ["[PAD]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    + HAN
    + [f"##{character}" for character in HAN[:50]]
    + ["ab", "##ab"]
)
FIRST_HAN, AB = 6, len(VOCABULARY) - 2


def random_rows(seed, *, batch, stored, pairs, words_at=0.6):
    """Returns tokens, word starts and segment lengths of random rows."""
    rng = np.random.default_rng(seed)
    lengths = np.zeros((batch, 2 * pairs), np.int32)
    for row in lengths:
        present = rng.integers(1, pairs + 1)
        total = rng.integers(2 * present, stored - 3 * (present - 1) + 1)
        cuts = rng.choice(np.arange(1, total), 2 * present - 1, replace=False)
        row[: 2 * present] = np.diff([0, *sorted(cuts), total])
    inside = np.arange(stored) < lengths.sum(1, keepdims=True)
    tokens = rng.integers(FIRST_HAN, FIRST_HAN + 60, (batch, stored))
    starts = (rng.random((batch, stored)) < words_at) & inside
    return (tokens * inside).astype(np.int32), starts, lengths


def masker(**changes):
    settings = {
        "max_seq_length": 64,
        "max_predictions_per_seq": 12,
        "masked_lm_prob": 0.15,
    }
    return masking.Masker(VOCABULARY, **(settings | changes))


def draw(rows, seed=1, *, first_row=0, **changes):
    keys = masking.row_keys(
        seed, tf.range(first_row, first_row + len(rows[0]), dtype=tf.int64)
    )
    batch = masker(**changes)(*map(tf.constant, rows), keys, packed=True)
    return {name: value.numpy() for name, value in batch.items()}


def restore(batch, row):
    """Puts the labels back and reads the pairs off one row, in order."""
    ids = batch["input_word_ids"][row].copy()
    count = int(batch["masked_lm_weights"][row].sum())
    ids[batch["masked_lm_positions"][row, :count]] = batch["masked_lm_ids"][
        row, :count
    ]
    pairs = []
    for number, swapped in enumerate(batch["sentence_order_labels"][row]):
        piece = batch["input_pair_ids"][row] == number + 1
        kinds = batch["input_type_ids"][row][piece]
        if not piece.any():
            assert batch["sentence_order_weights"][row, number] == 0
            assert not swapped
            continue
        assert batch["sentence_order_weights"][row, number] == 1
        assert ids[batch["cls_positions"][row, number]] == VOCABULARY.cls_id
        positions = batch["input_position_ids"][row][piece]
        np.testing.assert_array_equal(positions, np.arange(piece.sum()))
        assert (np.diff(kinds) >= 0).all()
        x, y = ids[piece][kinds == 0], ids[piece][kinds == 1]
        assert x[0] == VOCABULARY.cls_id
        assert x[-1] == y[-1] == VOCABULARY.sep_id
        x, y = x[1:-1], y[:-1]
        pairs += [y, x] if swapped else [x, y]
    filled = batch["input_mask"][row].sum()
    assert (batch["input_word_ids"][row][filled:] == 0).all()
    assert (batch["input_pair_ids"][row][filled:] == 0).all()
    return pairs


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(-(2**40), 2**40),
    words_at=st.sampled_from([0.05, 0.4, 0.7, 1.0]),
    prob=st.sampled_from([0.05, 0.15, 0.6]),
    max_ngram=st.integers(1, 4),
)
def test_every_row_can_be_restored_and_masks_whole_words(
    seed, words_at, prob, max_ngram
):
    rows = random_rows(
        abs(seed), batch=16, stored=61, pairs=3, words_at=words_at
    )
    tokens, starts, lengths = rows
    batch = draw(rows, seed, masked_lm_prob=prob, max_ngram=max_ngram)
    for row in range(16):
        count = int(batch["masked_lm_weights"][row].sum())
        positions = batch["masked_lm_positions"][row]
        budget = min(12, max(1, round(float(prob * lengths[row].sum()))))
        sizes = word_sizes(starts[row], lengths[row])
        # Where no span that was drawn fits the budget, a word is masked.
        assert count <= budget or count in sizes
        assert (np.diff(positions[:count]) > 0).all()  # sorted, unique
        assert (positions[count:] == 0).all()
        assert (batch["masked_lm_ids"][row, count:] == 0).all()
        np.testing.assert_array_equal(
            np.concatenate(restore(batch, row)),
            tokens[row, : lengths[row].sum()],
        )
        changed = np.zeros(64, bool)
        changed[positions[:count]] = True
        assert not np.isin(
            batch["input_word_ids"][row][changed],
            [VOCABULARY.cls_id, VOCABULARY.sep_id, VOCABULARY.padding_id],
        ).any()
        check_whole_words(batch, row, changed, starts[row], lengths[row])


def word_sizes(starts, lengths):
    """Returns the tokens of each word; a segment begins a word."""
    begins = np.flatnonzero(starts[: lengths.sum()])
    ends = np.cumsum(lengths)
    return np.diff(np.union1d(begins, [0, *ends])).tolist()


def check_whole_words(batch, row, changed, starts, lengths):
    """A word is masked whole or not at all, and within one segment."""
    ends = np.cumsum(lengths)
    starts = starts.copy()
    starts[[0, *ends[:-1][ends[:-1] < ends[-1]]]] = True
    words = np.cumsum(starts)
    place = 0
    for pair in range(len(lengths) // 2):
        sizes = lengths[2 * pair : 2 * pair + 2]
        if not sizes.sum():
            continue
        at = batch["cls_positions"][row, pair] + 1
        swapped = batch["sentence_order_labels"][row, pair]
        for side in (1, 0) if swapped else (0, 1):
            begin = place + side * sizes[0]
            segment = words[begin : begin + sizes[side]]
            hit = changed[at : at + sizes[side]]
            for word in np.unique(segment):
                assert len(set(hit[segment == word])) == 1
            at += sizes[side] + 1
        place += sizes.sum()


def test_masks_fill_the_budget():
    rows = random_rows(3, batch=512, stored=61, pairs=1)
    batch = draw(rows)
    budget = np.clip(np.round(rows[2].sum(1) * 0.15), 1, 12)
    filled = batch["masked_lm_weights"].sum(1)
    assert filled.sum() > 0.97 * budget.sum()


def test_rows_of_words_longer_than_the_budget_mask_one_word():
    """东西 不错: two words of two characters, and a budget of one."""
    tokens = np.tile(np.arange(4) + FIRST_HAN, (200, 1)).astype(np.int32)
    starts = np.tile([True, False, True, False], (200, 1))
    rows = tokens, starts, np.tile([2, 2], (200, 1)).astype(np.int32)
    batch = draw(rows, max_seq_length=8, max_predictions_per_seq=2)
    assert (batch["masked_lm_weights"].sum(1) == 2).all()
    words = (batch["masked_lm_ids"] - FIRST_HAN) // 2
    assert (words[:, 0] == words[:, 1]).all()  # a whole word
    assert 60 < words[:, 0].sum() < 140  # either of them
    # What is longer than all predictions of a row cannot be masked.
    batch = draw(rows, max_seq_length=8, max_predictions_per_seq=1)
    assert (batch["masked_lm_weights"] == 0).all()


def test_order_is_drawn_with_equal_chances_for_every_pair():
    rows = random_rows(4, batch=4096, stored=61, pairs=3)
    batch = draw(rows)
    present = batch["sentence_order_weights"] > 0
    for pair in range(3):
        labels = batch["sentence_order_labels"][:, pair][present[:, pair]]
        chance = stats.binomtest(int(labels.sum()), len(labels)).pvalue
        assert chance > 1e-4
    # The draws of the pairs of one row are independent.
    both = present[:, :2].all(1)
    table = np.histogram2d(*batch["sentence_order_labels"][both, :2].T, 2)[0]
    assert stats.chi2_contingency(table).pvalue > 1e-4


@pytest.mark.parametrize("max_ngram", [2, 3, 4])
def test_span_lengths_follow_one_over_n(max_ngram):
    stored = 400
    words = tf.tile(tf.range(1, stored + 1)[None, :], [2000, 1])
    lengths = tf.tile([[stored - 1, 1]], [2000, 1])
    keys = masking.row_keys(5, tf.range(2000, dtype=tf.int64))
    first, last = masker(max_ngram=max_ngram).draw_tiles(words, lengths, keys)
    # Tiles that neither the border nor the row's end could cut.
    whole = first.numpy() < stored - 1 - max_ngram
    # One draw per row: the tiles of one row share their borders.
    sizes = (last - first).numpy()[:, :4][whole[:, :4]]
    weights = 1 / np.arange(1, max_ngram + 1)
    observed = np.bincount(sizes, minlength=max_ngram + 1)[1:]
    assert observed.sum() == len(sizes)
    expected = weights / weights.sum() * len(sizes)
    assert stats.chisquare(observed, expected).pvalue > 1e-4


def test_every_word_is_masked_equally_often():
    """Borders, beginnings and ends are no worse than the middle."""
    batch, stored = 20_000, 120
    lengths = np.tile(np.array([[37, 5, 30, 48]], np.int32), (batch, 1))
    words = tf.tile(tf.range(1, stored + 1)[None, :], [batch, 1])
    keys = masking.row_keys(6, tf.range(batch, dtype=tf.int64))
    source, valid = masker(max_predictions_per_seq=24)._draw_masked(
        words, tf.constant(lengths), keys
    )
    hits = np.bincount(source.numpy()[valid.numpy()], minlength=stored)
    assert hits.sum() > 0.99 * 18 * batch
    # What is left of a budget favours the short tiles beside a border.
    assert hits.max() / hits.mean() < 1.08
    assert hits.min() / hits.mean() > 0.92


def test_the_largest_draw_stays_below_every_limit():
    limits = np.arange(1, 1 << 18, dtype=np.int32)
    largest = tf.fill(limits.shape, tf.constant(0xFFFFFFFF, tf.uint32))
    np.testing.assert_array_equal(draws.below(largest, limits), limits - 1)
    np.testing.assert_array_equal(draws.below(largest[:2], [0, 1]), [0, 0])


def test_masked_words_are_hidden_80_10_10_as_a_whole():
    rows = random_rows(7, batch=4096, stored=61, pairs=1, words_at=0.5)
    batch = draw(rows)
    labels, ids = batch["masked_lm_ids"], batch["input_word_ids"]
    valid = batch["masked_lm_weights"] > 0
    seen = np.take_along_axis(ids, batch["masked_lm_positions"], axis=1)
    hidden = (seen == VOCABULARY.mask_id)[valid]
    kept = (seen == labels)[valid]
    # A random token equals the label once in 61.
    shares = [0.8, 0.1 + 0.1 / 61, 0.1 * 60 / 61]
    observed = [hidden.sum(), kept.sum(), (~hidden & ~kept).sum()]
    expected = np.array(shares) * valid.sum()
    # Per token, not per word: words of mean length 2 halve the evidence.
    assert stats.chisquare(observed, expected).statistic < 60
    assert abs(observed[0] / valid.sum() - 0.8) < 0.01
    check_actions_are_per_word(rows, batch)


def test_all_bits_of_seed_and_row_decide():
    keys = {
        int(masking.row_keys(seed, tf.constant([row], tf.int64))[0])
        for seed in (1, 1 + 2**32, 1 + 2**33)
        for row in (5, 5 + 2**32, 5 + 2**33)
    }
    assert len(keys) == 9


def check_actions_are_per_word(rows, batch):
    """A word is hidden in one way; what replaces its tokens differs."""
    mixed = words = replaced = alike = 0
    for row in range(400):
        count = int(batch["masked_lm_weights"][row].sum())
        positions = batch["masked_lm_positions"][row, :count]
        seen = batch["input_word_ids"][row][positions]
        source = positions - 1  # unswapped rows: behind [CLS]
        if batch["sentence_order_labels"][row, 0]:
            continue
        source = np.where(positions > rows[2][row, 0], source - 1, source)
        starts = rows[1][row].copy()
        starts[rows[2][row, 0]] = True  # the second segment
        word = np.cumsum(starts)[source]
        for number in np.unique(word):
            masked = seen[word == number] == VOCABULARY.mask_id
            words += 1
            mixed += len(set(masked)) > 1
            labels = batch["masked_lm_ids"][row, :count]
            others = seen[(word == number) & (seen != labels)]
            if len(others) > 1 and not masked.any():
                replaced += 1
                alike += len(set(others)) == 1
    assert words > 300 and mixed == 0
    assert replaced > 10 and alike < replaced / 4


def test_replacements_are_ordinary_tokens_drawn_evenly():
    rows = random_rows(8, batch=8192, stored=61, pairs=1)
    batch = draw(rows, masked_lm_prob=0.2)
    seen = np.take_along_axis(
        batch["input_word_ids"], batch["masked_lm_positions"], axis=1
    )
    replaced = seen[
        (batch["masked_lm_weights"] > 0)
        & (seen != VOCABULARY.mask_id)
        & (seen != batch["masked_lm_ids"])
    ]
    ordinary = masking.replacement_ids(VOCABULARY)
    tokens = [VOCABULARY.tokens[number] for number in ordinary]
    assert tokens == [*HAN, "ab"]
    counts = np.bincount(replaced, minlength=len(VOCABULARY))
    assert counts[ordinary].sum() == len(replaced)
    # The Han tokens are the labels too, each equally often; `ab` never is.
    assert stats.chisquare(counts[FIRST_HAN : FIRST_HAN + 60]).pvalue > 1e-4


def test_masks_do_not_depend_on_batch_or_execution():
    rows = random_rows(9, batch=8, stored=61, pairs=2)
    whole = draw(rows, first_row=1000)
    again = draw(rows, first_row=1000)
    other = draw(rows, first_row=1008)
    halves = [
        draw([part[i : i + 4] for part in rows], first_row=1000 + i)
        for i in (0, 4)
    ]

    def step(*arguments):
        *parts, numbers = arguments
        return masker()(*parts, masking.row_keys(1, numbers), packed=True)

    arguments = [
        *map(tf.constant, rows),
        tf.range(1000, 1008, dtype=tf.int64),
    ]
    graph = tf.function(step)(*arguments)
    compiled = tf.function(step, jit_compile=True)(*arguments)
    for name, value in whole.items():
        np.testing.assert_array_equal(value, again[name])
        np.testing.assert_array_equal(value, graph[name])
        np.testing.assert_array_equal(value, compiled[name])
        np.testing.assert_array_equal(
            value, np.concatenate([half[name] for half in halves])
        )
    name = features.MASKED_LM_POSITIONS
    assert (whole[name] != other[name]).any()
    assert (whole[name] != draw(rows, 2, first_row=1000)[name]).any()


def test_albert_zh_labels_keep_pieces_behind_the_first_character():
    # The word 一丁 and the word ab; 丂 alone.
    one, two, three = FIRST_HAN, FIRST_HAN + 1, FIRST_HAN + 2
    rows = (
        np.array([[one, two, AB, three, FIRST_HAN + 55, one]], np.int32),
        np.array([[True, False, True, True, False, True]]),
        np.array([[5, 1]], np.int32),
    )
    tables = {"plain": set(), "albert_zh": set()}
    for style, seen in tables.items():
        for seed in range(40):
            batch = draw(rows, seed, masked_lm_prob=0.7, label_style=style)
            seen |= {
                VOCABULARY.tokens[number]
                for number in batch["masked_lm_ids"][
                    batch["masked_lm_weights"] > 0
                ]
            }
    no_piece = HAN[55]  # its `##` form is not in this vocabulary
    assert tables["plain"] == {HAN[0], HAN[1], "ab", HAN[2], no_piece}
    pieces = {HAN[0], f"##{HAN[1]}", "ab", HAN[2], no_piece}
    assert tables["albert_zh"] == pieces


def test_released_vocabulary_maps_characters_to_their_pieces(shared_vocab):
    vocabulary = Vocabulary.load(shared_vocab)
    assert masking.piece_ids(vocabulary)[4133] == 17190  # 灸 -> ##灸
    ordinary = masking.replacement_ids(vocabulary)
    assert not {0, 100, 101, 102, 103, 17190} & set(ordinary.tolist())


def test_unpacked_rows_have_the_plain_inputs_only():
    rows = random_rows(10, batch=2, stored=61, pairs=1)
    keys = masking.row_keys(0, tf.range(2, dtype=tf.int64))
    batch = masker()(*map(tf.constant, rows), keys)
    assert set(batch) == {
        *features.ENCODER_INPUTS,
        features.MASKED_LM_POSITIONS,
        *features.LABELS,
    }
    dtypes = {name: value.dtype for name, value in batch.items()}
    floats = {features.MASKED_LM_WEIGHTS, features.SENTENCE_ORDER_WEIGHTS}
    for name, dtype in dtypes.items():
        assert dtype == (tf.float32 if name in floats else tf.int32), name


@pytest.mark.parametrize(
    "setting, value",
    [
        ("label_style", "zh"),
        ("masked_lm_prob", 1.5),
        ("max_ngram", 0),
        ("max_predictions_per_seq", 0),
    ],
)
def test_wrong_settings_are_named(setting, value):
    with pytest.raises(UserError, match=setting):
        masker(**{setting: value})
