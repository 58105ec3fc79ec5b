"""Word vectors to begin with: counted, before the first step is trained.

    near 医:    疗 650 times as often as by chance    的 as often as by chance

ALBERT's table of words is narrow and apart from its layers (E = 128), and that
is what counting yields as well: the logarithms of such ratios, as far as they
are positive, in the E directions that tell most of them (Levy and Goldberg
2014, "Neural Word Embedding as Implicit Matrix Factorization"). Counting takes
seconds, where training needs its first minutes to know as much.

Letters: C tokens are counted, S are stored in a row; else as in `features`.
"""

from collections.abc import Callable, Iterable, Iterator

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
# C at most: two tables of C^2 floats are the memory, 0.5 GB.
_MOST = 8_192
# Frequent neighbours say less than their share (Levy et al. 2015, section 3.1).
_SMOOTHING = 0.75
# At most so many rows are read, and so many at a time.
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

    That is the word embeddings, and the bias of the masked-word head, which
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
        "the word embeddings"
    )
    ids, vectors = counted_vectors(records, width, seed=seed)
    values = table.numpy()
    values[ids] = SIZE * vectors
    table.assign(workers.first(values))
    bias = pipeline.unigram_log_probs(records, masker, vocab_size)
    model.mlm_head.output_bias.assign(workers.first(bias.astype(np.float32)))
    say(
        f"{len(ids):,} of {vocab_size:,} tokens begin with what was counted, "
        "the rest, which are rarer, with random numbers"
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
        (ids, vectors): int64 [C], and float32 [C, E] of length sqrt(E). Of
        little text there is nothing to tell: C = 0.
    """
    frequencies = np.zeros(records.vocab_size, np.int64)
    for tokens, _ in _blocks(records):
        frequencies += np.bincount(
            tokens[tokens >= 0], minlength=len(frequencies)
        )
    ids = np.argsort(-frequencies, kind="stable")[:_MOST]
    ids = np.sort(ids[frequencies[ids] >= LEAST_COUNT])
    counts = count_neighbours(_blocks(records), ids, records.vocab_size)
    vectors = strongest_directions(association(counts), width, seed)
    lengths = np.linalg.norm(vectors, axis=1)
    told = lengths > 1e-6  # else nobody stands near it more than by chance
    return ids[told], vectors[told] * (width**0.5 / lengths[told, None])


def _blocks(
    records: CompactRecords,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields tokens [B, S], -1 behind their ends, and their pairs [B, S]."""
    strings = tf.data.TFRecordDataset(list(records.paths)).take(_ROWS)
    for block in strings.batch(_BLOCK):
        tokens, _, lengths = (part.numpy() for part in records.parse(block))
        ends = lengths.cumsum(axis=1)[:, 1::2]  # [B, K]
        places = np.arange(tokens.shape[1])
        pairs = np.zeros(tokens.shape, np.int32)
        for end in ends.T:
            pairs += places >= end[:, None]
        yield np.where(pairs < records.max_pairs, tokens, -1), pairs


def count_neighbours(
    blocks: Iterable[tuple[np.ndarray, np.ndarray]],
    ids: np.ndarray,
    vocab_size: int,
) -> np.ndarray:
    """Counts who stands near whom; those of another pair do not.

    Args:
        blocks: Tokens and the numbers of their pairs, both [B, S]; -1 where
            there is no token.
        ids: int64 [C], those that are counted.
        vocab_size: V.

    Returns:
        float32 [C, C], symmetric.
    """
    numbers = np.full(vocab_size + 1, -1)  # the last one is for -1
    numbers[ids] = np.arange(len(ids))
    counts = np.zeros(len(ids) ** 2, np.float32)
    for block, pairs in blocks:
        tokens = numbers[block]
        for distance in range(1, WINDOW + 1):
            left, right = tokens[:, :-distance], tokens[:, distance:]
            both = (left >= 0) & (right >= 0)
            both &= pairs[:, :-distance] == pairs[:, distance:]
            places = left[both] * len(ids) + right[both]
            np.add.at(counts, places, np.float32(1 / distance))
    table = counts.reshape(len(ids), len(ids))
    table += table.T
    return table


def association(counts: np.ndarray) -> np.ndarray:
    """Returns how much more often than by chance, as logarithms.

    Positive pointwise mutual information, with the neighbours' frequencies
    flattened, and symmetric.

    Args:
        counts: float32 [C, C], symmetric; overwritten.
    """
    sums = counts.sum(axis=0, dtype=np.float64)
    flat = sums**_SMOOTHING
    flat /= max(flat.sum(), 1e-9)
    counts /= np.maximum(sums, 1e-9).astype(np.float32)[:, None]
    counts /= np.maximum(flat, 1e-18).astype(np.float32)[None, :]
    np.log(np.maximum(counts, 1.0, out=counts), out=counts)
    counts += counts.T
    counts /= 2
    return counts


def strongest_directions(
    matrix: np.ndarray, width: int, seed: int
) -> np.ndarray:
    """Returns X of a symmetric matrix, X X^T being nearest to it, rotated.

    By a randomized search with power iterations (Halko et al. 2011,
    algorithms 4.4 and 5.3).

    Args:
        matrix: float32 [C, C].
        width: E; columns beyond N hold nothing before the rotation.
        seed: Of the search and of the rotation.

    Returns:
        float32 [C, E].
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
