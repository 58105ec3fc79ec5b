"""Attention heads to begin with: most of them know where to look.

Of twelve heads,

    head   0   1   2   3   4   5   6   7   8 and 9          10 and 11
    looks -1  +1  -2  +2  -3  +3  -4  +4   at the same      anywhere, as
                                           word in the      random numbers do
                                           other text

A new model cannot tell a token's neighbours from the rest of its text, nor its
equal from any other word: queries, keys and positions are random numbers. Its
first hour teaches it little but which words share a text. Yet how a head finds
either is known. (Heads that begin where training would lead them: mimetic
initialization, 2305.09828.)

A neighbour: let positions be waves (1706.03762, section 3.5), of frequency w

    p(t) = [cos wt, sin wt]

which a rotation turns into those of t + d. So where keys are waves, and queries
are waves that are turned by d, a head looks d tokens ahead:

    q(t) . k(s) = sum over w of cos w(t + d - s)    largest at s = t + d

The same word: queries and keys are some directions of a token's word, which is
nearest to itself, and the sign of its text, which queries turn around.

Training begins there and may change all of it. Deeper layers find words and
places as far as the residual sum still tells them: in tiny the last of four
does, in base the first few of twelve.

Letters: F frequencies, P positions, W the width of embeddings, R the smaller of
W and H; else as in `model.layers`.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from albert_tf2.config import AlbertConfig
from albert_tf2.errors import UserError
from albert_tf2.model.albert import AlbertPretrainer
from albert_tf2.model.layers import Embeddings
from albert_tf2.training.workers import Workers

# The shortest and the longest wave, in tokens. With few of them places are much
# alike: with two, a neighbour has a fourteenth of the attention.
PERIODS, LEAST_WAVES = (3.0, 200.0), 6
# The farthest neighbour that a head begins with.
FARTHEST = 8
# Of an embedding's squares: what is its word's, its position's and its text's.
# (With a tenth for the text, sentence order was learned later.)
WORD, POSITION, TEXT = 0.49, 0.49, 0.02
# A head's score of what it looks for. Far tokens have about 0, those beside it
# nearly as much: in tiny it has 45 % of the attention in a text of 128 tokens.
PEAK = 6.0
# What is added to scores of the other text, and taken from those of the own.
OTHER_TEXT = 3.0

# What a head asks and answers: columns of its query's and its key's kernel.
Look = tuple[np.ndarray, np.ndarray]


def offsets(heads: int) -> list[int]:
    """Returns where up to two thirds of the heads look: -1, 1, -2, 2, ..."""
    farthest = min(heads // 3, FARTHEST)
    return [d for far in range(1, farthest + 1) for d in (-far, far)]


def matching(heads: int) -> int:
    """Returns how many heads look at the same word: a sixth, one at least."""
    return max(1, heads // 6)


class Room(NamedTuple):
    """Where in an embedding, and in what enters the layers, things lie.

    Directions are columns at right angles: `embedding @ x_in` of the embeddings
    and `hidden @ x_out` of the layers' inputs are the same numbers.

    Attributes:
        place_in: [W, 2F], of the positions' waves.
        place_out: [H, 2F].
        text_in: [W, 1], of the sign of a token's text.
        text_out: [H, 1].
        word_out: [H, R - 2F - 1], of words alone.
        mapping: [W, H], the kernel between embeddings and layers; None where
            they are as wide.
    """

    place_in: np.ndarray
    place_out: np.ndarray
    text_in: np.ndarray
    text_out: np.ndarray
    word_out: np.ndarray
    mapping: np.ndarray | None


def begin_with(
    model: AlbertPretrainer,
    *,
    seed: int,
    workers: Workers,
    say: Callable[[str], None] = print,
) -> None:
    """Gives an untrained model heads that know where to look.

    Sets their queries and keys, the positions and texts of the embeddings, and
    in the google layout what leads from these to the layers. Words lose what
    they have in the text's direction.

    Args:
        model: Untrained, with its first word vectors.
        seed: Of the directions in which things lie.
        workers: All of them begin with the first one's numbers.
        say: Receives what is done.

    Raises:
        UserError: For a model with too few or too narrow heads.
    """
    config, encoder = model.config, model.encoder
    heads = config.num_attention_heads
    omega = frequencies(config)
    generator = np.random.default_rng(seed)
    room = divide(config, omega, generator)
    changed = list(_embeddings(encoder.embeddings, room, omega))
    if room.mapping is not None:
        mapping = encoder.embedding_hidden_mapping_in
        assert mapping is not None, "both where E is not H"
        changed.append((mapping.kernel, room.mapping))
    size = config.hidden_size // heads
    looks = [*_neighbours(room, omega, heads, size)]
    looks += _matches(room, generator, heads, size)
    for block in encoder.attention_layers:
        for number, dense in enumerate((block.query, block.key)):
            kernel = dense.kernel.numpy()  # [H, N * D]
            for head, look in enumerate(looks):
                columns = look[number]
                first = head * size
                kernel[:, first : first + columns.shape[1]] = columns
            changed.append((dense.kernel, kernel))
    for variable, values in changed:
        variable.assign(workers.first(values.astype(np.float32)))
    say(
        f"of {heads} attention heads {len(offsets(heads))} begin at a token's "
        f"neighbours, up to {offsets(heads)[-1]} away, {matching(heads)} at "
        "the same word in the other text, any others with random numbers"
    )


def frequencies(config: AlbertConfig) -> np.ndarray:
    """Returns w of each wave, float64 [F]: as many as a head has room for.

    Raises:
        UserError: If that are too few, or too few heads.
    """
    heads, hidden = config.num_attention_heads, config.hidden_size
    words = config.embedding_size
    narrow = min(words, hidden) if config.layout == "google" else hidden  # R
    # Three quarters of the directions are left to the words.
    count = min(hidden // heads, narrow // 4) // 2
    if count < LEAST_WAVES or not offsets(heads) or config.type_vocab_size < 2:
        raise UserError(
            "recipe: `attention_heads=constructed` needs three heads or more, "
            f"each at least {2 * LEAST_WAVES} wide, words and layers at least "
            f"{8 * LEAST_WAVES} wide (in the brightmart layout layers alone), "
            f"and two types of tokens. The model has {heads} heads, "
            f"{hidden // heads} wide, words {words} wide, layers {hidden} wide "
            f"and {config.type_vocab_size} types: leave the setting away"
        )
    return 2 * np.pi / np.geomspace(*PERIODS, count)


def divide(
    config: AlbertConfig, omega: np.ndarray, generator: np.random.Generator
) -> Room:
    """Chooses directions for places, texts and words."""
    hidden = config.hidden_size
    if config.layout == "google" and config.embedding_size != hidden:
        narrow = min(config.embedding_size, hidden)  # R
        inner = _orthonormal(generator, config.embedding_size, narrow)
        outer = _orthonormal(generator, hidden, narrow)
        # What enters the layers is then about as large as what leaves them.
        scale = (hidden / narrow) ** 0.5
        mapping = scale * inner @ outer.T
        outer = outer / scale
    else:
        # More directions than these take long to find.
        inner = outer = _orthonormal(generator, hidden, min(hidden, 1024))
        mapping = None
    waves = 2 * len(omega)
    place, text = slice(waves), slice(waves, waves + 1)
    return Room(
        inner[:, place],
        outer[:, place],
        inner[:, text],
        outer[:, text],
        outer[:, waves + 1 :],
        mapping,
    )


def rotation(offset: int, omega: np.ndarray) -> np.ndarray:
    """Returns R, p(t) R being p(t + offset): float64 [2F, 2F]."""
    cosines = np.diag(np.cos(offset * omega))
    sines = np.diag(np.sin(offset * omega))
    return np.block([[cosines, sines], [-sines, cosines]])


def _embeddings(
    embeddings: Embeddings, room: Room, omega: np.ndarray
) -> Iterator[tuple[tf.Variable, np.ndarray]]:
    """Yields the tables of words, positions and texts, and their numbers."""
    words = embeddings.word_embeddings.numpy()
    # What decides where words lie. They leave the text's direction to it.
    table, projection = embeddings.word_embeddings, embeddings.word_projection
    if projection is not None:
        table, words = projection, words @ projection.numpy()
    values = table.numpy()
    yield table, values - (values @ room.text_in) @ room.text_in.T
    # Of counted words, where some were: all others are rare, and smaller.
    energies = np.square(words).sum(axis=1)
    energy = energies[energies > energies.max() / 2].mean()
    positions = embeddings.position_embeddings
    angles = np.arange(positions.shape[0])[:, None] * omega
    waves = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)  # [P, 2F]
    amplitude = (energy * POSITION / WORD / len(omega)) ** 0.5
    yield positions, amplitude * waves @ room.place_in.T
    types = embeddings.token_type_embeddings
    values = types.numpy()
    amplitude = (energy * TEXT / WORD) ** 0.5
    values[:2] = amplitude * np.array([[1.0], [-1.0]]) * room.text_in.T
    yield types, values


def _neighbours(
    room: Room, omega: np.ndarray, heads: int, size: int
) -> Iterator[Look]:
    """Yields the looks at neighbours."""
    # q(t) . k(t + d) / sqrt(D) is PEAK then: LayerNorm makes an embedding's
    # squares add up to W, and POSITION of that are the waves'.
    gain = (PEAK * size**0.5 / (POSITION * len(room.place_in))) ** 0.5
    keys = gain * room.place_out
    for offset in offsets(heads):
        yield keys @ rotation(offset, omega), keys


def _matches(
    room: Room, generator: np.random.Generator, heads: int, size: int
) -> Iterator[Look]:
    """Yields the looks at the same word in the other text."""
    directions = room.word_out.shape[1]
    kept = min(size - 1, directions)
    gain = (PEAK * size**0.5 / (WORD * kept)) ** 0.5
    text_gain = (OTHER_TEXT * size**0.5 / (TEXT * len(room.text_in))) ** 0.5
    text = text_gain * room.text_out
    for _ in range(matching(heads)):
        some = _orthonormal(generator, directions, kept)
        words = gain * room.word_out @ some
        yield (
            np.concatenate([words, -text], axis=1),
            np.concatenate([words, text], axis=1),
        )


def _orthonormal(
    generator: np.random.Generator, rows: int, columns: int
) -> np.ndarray:
    """Returns random columns of length 1 at right angles."""
    return np.linalg.qr(generator.standard_normal((rows, columns)))[0]
