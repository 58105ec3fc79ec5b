"""Word vectors to begin with: counted, before the first step is trained.

    near 医:    疗 650 times as often as by chance    的 as often as by chance

ALBERT's table of words is narrow and apart from its layers (E = 128), and that
is what counting yields as well: the logarithms of such ratios, as far as they
are positive, in the E directions that tell most of them (Levy and Goldberg
2014, "Neural Word Embedding as Implicit Matrix Factorization"). Counting takes
seconds, where training needs its first minutes to know as much.

Letters: V tokens, N of them counted, E the width of a vector.
"""

from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from albert_tf2.model.albert import AlbertPretrainer
from albert_tf2.records import pipeline
from albert_tf2.records.masking import Masker
from albert_tf2.records.record_set import CompactRecords
from albert_tf2.training.workers import Workers

# Tokens so far apart are still neighbours; one at distance d counts as 1/d.
WINDOW = 5
# An element of a vector, as a root mean square: about what training makes of
# it. At the initializer's 0.02, positions would be as loud.
SIZE = 0.15
# Rarer tokens keep random vectors: what is counted for them is chance.
LEAST_COUNT = 20
# N at most: four tables of N^2 floats are the memory, 1.1 GB.
_MOST = 8_192
# Frequent neighbours say less than their share (Levy et al. 2015, section 3.1).
_SMOOTHING = 0.75
# More text would not change what the common tokens' neighbours are.
_ROWS, _BLOCK = 1_000_000, 4_096
# Of the search for the strongest directions: spare ones, and rounds.
_SPARE, _ROUNDS = 32, 6


def begin_with(
    model: AlbertPretrainer,
    records: CompactRecords,
    masker: Masker,
    *,
    seed: int,
    workers: Workers,
    say: Callable[[str], None] = print,
) -> None:
    """Fills an untrained model with what counting tells.

    That is the table of words, and the bias of the masked-word head, which
    begins with the labels' log frequencies.

    Args:
        model: Untrained.
        records: What it will be trained on.
        masker: It spells the labels.
        seed: Of the vectors' rotation.
        workers: All of them begin with the first one's numbers.
        say: Receives what is done.
    """
    table = model.encoder.embeddings.word_embeddings
    vocab_size, width = table.shape
    say(
        f"counting neighbours in {min(records.records, _ROWS):,} records, for "
        "the table of words"
    )
    ids, vectors = counted_vectors(records, width, seed=seed)
    values = table.numpy()
    values[ids] = SIZE * vectors
    table.assign(workers.first(values))
    bias = pipeline.unigram_log_probs(records, masker, vocab_size)
    model.mlm_head.output_bias.assign(workers.first(bias.astype(np.float32)))
    say(
        f"{len(ids):,} of {vocab_size:,} tokens come {LEAST_COUNT} times and "
        "begin with what was counted, the rest with random numbers"
    )


def counted_vectors(
    records: CompactRecords, width: int, *, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the common tokens and their vectors.

    Args:
        records: Of which at most a million rows are read, twice.
        width: E.
        seed: Of the rotation, which spreads what the directions tell evenly
            over the elements.

    Returns:
        (ids, vectors): int64 [N], and float32 [N, E] of length sqrt(E). Of
        little text there is nothing to tell: N = 0.
    """
    frequencies = np.zeros(records.vocab_size, np.int64)
    for tokens in _blocks(records):
        frequencies += np.bincount(
            tokens[tokens >= 0], minlength=len(frequencies)
        )
    ids = np.argsort(-frequencies, kind="stable")[:_MOST]
    ids = np.sort(ids[frequencies[ids] >= LEAST_COUNT])
    counts = count_neighbours(_blocks(records), ids, records.vocab_size)
    vectors = strongest_directions(association(counts), width, seed)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return ids, vectors * (width**0.5 / np.maximum(lengths, 1e-9))


def _blocks(records: CompactRecords) -> Iterator[np.ndarray]:
    """Yields the tokens of some rows, int64 [B, S]; -1 behind their ends."""
    strings = tf.data.TFRecordDataset(list(records.paths)).take(_ROWS)
    for block in strings.batch(_BLOCK):
        tokens, _, lengths = records.parse(block)
        present = tf.sequence_mask(
            tf.reduce_sum(lengths, axis=1), tokens.shape[1]
        )
        yield tf.where(present, tokens, -1).numpy().astype(np.int64)


def count_neighbours(
    blocks: Iterator[np.ndarray], ids: np.ndarray, vocab_size: int
) -> np.ndarray:
    """Counts who stands near whom.

    Args:
        blocks: int64 [B, S] each, -1 where there is no token.
        ids: int64 [N], those that are counted.
        vocab_size: V.

    Returns:
        float32 [N, N], symmetric.
    """
    numbers = np.full(vocab_size + 1, -1)  # the last one is for -1
    numbers[ids] = np.arange(len(ids))
    counts = np.zeros(len(ids) ** 2, np.float32)
    for block in blocks:
        tokens = numbers[block]
        for distance in range(1, WINDOW + 1):
            left, right = tokens[:, :-distance], tokens[:, distance:]
            both = (left >= 0) & (right >= 0)
            places = left[both] * len(ids) + right[both]
            np.add.at(counts, places, np.float32(1 / distance))
    table = counts.reshape(len(ids), len(ids))
    return table + table.T


def association(counts: np.ndarray) -> np.ndarray:
    """Returns how much more often than by chance, as logarithms.

    Positive pointwise mutual information, with the neighbours' frequencies
    flattened, and symmetric.

    Args:
        counts: float32 [N, N], symmetric; overwritten.
    """
    sums = counts.sum(axis=0, dtype=np.float64)
    flat = sums**_SMOOTHING / (sums**_SMOOTHING).sum()
    counts /= np.maximum(sums, 1e-9).astype(np.float32)[:, None]
    counts /= np.maximum(flat, 1e-18).astype(np.float32)[None, :]
    np.log(np.maximum(counts, 1.0, out=counts), out=counts)
    return (counts + counts.T) / 2


def strongest_directions(
    matrix: np.ndarray, width: int, seed: int
) -> np.ndarray:
    """Returns X of a symmetric matrix, X X^T being nearest to it, rotated.

    By a randomized search with power iterations (Halko et al. 2011,
    algorithms 4.4 and 5.3).

    Args:
        matrix: float32 [N, N].
        width: E; columns beyond N hold nothing before the rotation.
        seed: Of the search and of the rotation.

    Returns:
        float32 [N, E].
    """
    generator = np.random.default_rng(seed)
    basis = generator.standard_normal(
        (len(matrix), min(width + _SPARE, len(matrix))), np.float32
    )
    for _ in range(_ROUNDS):
        basis, _ = np.linalg.qr(matrix @ basis)
    values, small = np.linalg.eigh(basis.T @ (matrix @ basis))
    values, small = values[::-1][:width], small[:, ::-1][:, :width]
    vectors = basis @ (small * np.sqrt(np.maximum(values, 0.0)))
    rotation, _ = np.linalg.qr(generator.standard_normal((width, width)))
    return (vectors @ rotation[: vectors.shape[1]]).astype(np.float32)
