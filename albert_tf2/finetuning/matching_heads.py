"""Attention heads that begin by asking: is my word in the other text?

Whether two questions share their words says much about whether they ask the
same, and no head of the starter looks for it. So some heads give up what they
do, those with the smallest product of value and output kernel, and begin anew:

    q(t) = [ W (x - m),  -s,  1 ]        v(t) = [ 1 - n,  ... ]
    k(t) = [ W (x - m),   s,  n ]

x is what enters the first layer at a token, m its mean. W holds the D - 2
directions in which words differ most compared with how much one word differs
from place to place (a discriminant analysis, Fisher 1936). s is the text's
sign, -1 or 1, and n is 1 at [CLS] and [SEP], 0 at words. Scales left out, a
score is largest where the words are equal and the texts are not, second at
[CLS] and [SEP] of the other text. So a token whose word is there finds it, any
other finds those, and the head's first value says which: it is added to the
token, times a random direction. The kernels of all other values and outputs
stay as they are, and training goes on from there.

That holds for short texts. The longer the other text, the likelier some word in
it is alike by chance.

A new model can begin with heads of this kind (`pretraining.first_heads`), but
pre-training then gives them other work. A trained model that is given such
heads keeps them when it is trained on (docs/log.md).

Letters: K words, P places, H hidden, N heads, D per head.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from albert_tf2.errors import UserError
from albert_tf2.model.albert import AlbertEncoder
from albert_tf2.model.layers import AttentionBlock
from albert_tf2.tasks.encoding import Example
from albert_tf2.text.text_settings import SPECIAL_TOKENS
from albert_tf2.text.tokenization import Vocabulary
from albert_tf2.training.workers import Workers

# With fewer directions any two words are alike.
LEAST_WIDTH = 8
# The most frequent words, and places at which each of them is looked at. What
# differs between places that are not looked at would pass for words.
MOST_WORDS, MOST_PLACES = 1024, 24
# Scores: of an equal word, on average, and of [CLS] and [SEP]; any other word
# has 0. What is added to those of the other text, and taken from the own.
EQUAL, NOWHERE, OTHER_TEXT = 12.0, 6.0, 12.0
# How long what is added to a token is: a share of the token's own length.
LOUDNESS = 1.0
# Of the words' mean variance: it keeps an inverse from growing without bounds.
RIDGE = 1e-3
# Variance between words to that within one: less is no direction of words.
LEAST_RATIO = 1.0


class Look(NamedTuple):
    """What a head asks, answers or tells: a kernel [H, *] and its bias [*]."""

    kernel: np.ndarray
    bias: np.ndarray


def check(encoder: object, heads: int) -> None:
    """Refuses encoders without room for so many heads of the kind.

    Raises:
        UserError: If there is none.
    """
    if not isinstance(encoder, AlbertEncoder):
        raise UserError(
            "recipe: `matching_heads` changes weights by their names, which a "
            "hub encoder keeps inside: start from a checkpoint, or set "
            "matching_heads=0"
        )
    config = encoder.config
    width = config.hidden_size // config.num_attention_heads
    if (
        heads > config.num_attention_heads
        or width < LEAST_WIDTH
        or config.type_vocab_size < 2
    ):
        raise UserError(
            f"recipe: `matching_heads={heads}` needs as many heads, each at "
            f"least {LEAST_WIDTH} wide, and two types of tokens. The model has "
            f"{config.num_attention_heads} heads, {width} wide, and "
            f"{config.type_vocab_size} types: ask for fewer, or set "
            "matching_heads=0"
        )
    first, second = encoder.embeddings.token_type_embeddings.numpy()[:2]
    if np.array_equal(first, second):
        raise UserError(
            "recipe: `matching_heads` tell two texts by their types' vectors, "
            "which are equal in this model: set matching_heads=0"
        )


def check_pairs(examples: Iterable[Example]) -> None:
    """Refuses rows without a second text.

    Raises:
        UserError: If none has one.
    """
    if not any(any(p.type_ids) for e in examples for p in e.sequences):
        raise UserError(
            "recipe: `matching_heads` look from one text into the other, and "
            "the training rows are single texts: set matching_heads=0"
        )


def begin(
    encoder: AlbertEncoder,
    heads: int,
    examples: Iterable[Example],
    *,
    vocabulary: Vocabulary,
    seed: int,
    workers: Workers,
    say: Callable[[str], None] = print,
) -> None:
    """Gives the first block, in ALBERT every layer's, such heads.

    Args:
        encoder: With its trained weights; see `check`.
        heads: How many.
        examples: Pairs of texts. A word counts by the root of how often it
            comes.
        vocabulary: Theirs.
        seed: Of the directions in which heads look, and tell what they find.
        workers: All of them begin with the first one's numbers.
        say: Receives which heads they are.

    Raises:
        UserError: If they hold fewer than two words.
    """
    around = [vocabulary.cls_id, vocabulary.sep_id]
    words, weights, places = _count(examples, vocabulary)
    generator = np.random.default_rng(seed)
    first, _ = encoder.plan[0][0]
    block = encoder.attention_layers[first]
    chosen = least(block, heads)
    hidden = first_inputs(encoder, [*words, *around], places)
    inputs = hidden
    if encoder.config.ln_type == "preln":
        rows = tf.constant(hidden.reshape([-1, hidden.shape[-1]]))
        inputs = block.layer_norm(rows).numpy().reshape(hidden.shape)
    width = _width(block)
    queries, keys, found = looks(
        inputs[:, :, : len(words)],
        inputs[:, :, len(words) :],
        weights,
        heads,
        width,
        generator,
    )
    length = np.sqrt(np.square(hidden).sum(axis=-1).mean())
    layers = (block.query, block.key, block.value, block.output_dense)
    changed = [(dense.kernel.numpy(), dense.bias.numpy()) for dense in layers]
    query, key, value, output = changed
    for head, asks, answers in zip(chosen, queries, keys, strict=True):
        begins = head * width
        columns = slice(begins, begins + width)
        query[0][:, columns], query[1][columns] = asks
        key[0][:, columns], key[1][columns] = answers
        value[0][:, begins], value[1][begins] = found
        told = generator.standard_normal(len(output[1]))
        told *= LOUDNESS * length / np.linalg.norm(told)
        output[0][begins] = told
        output[1][:] -= told / 2  # found or not: as much in either direction
    for dense, (kernel, bias) in zip(layers, changed, strict=True):
        dense.kernel.assign(workers.first(kernel))
        dense.bias.assign(workers.first(bias))
    say(
        f"attention heads {', '.join(str(head + 1) for head in chosen)} of "
        f"{encoder.config.num_attention_heads} begin anew: is a word in the "
        "other text, too? (`matching_heads`)"
    )


def least(block: AttentionBlock, heads: int) -> list[int]:
    """Returns the heads with the smallest product of value and output."""
    width = _width(block)
    values = block.value.kernel.numpy()  # [H, N * D]
    outputs = block.output_dense.kernel.numpy()  # [N * D, H]
    sizes = [
        np.linalg.norm(values[:, i : i + width] @ outputs[i : i + width])
        for i in range(0, len(outputs), width)
    ]
    return sorted(int(head) for head in np.argsort(sizes)[:heads])


def looks(
    inputs: np.ndarray,
    around: np.ndarray,
    weights: np.ndarray,
    heads: int,
    width: int,
    generator: np.random.Generator,
) -> tuple[list[Look], list[Look], Look]:
    """Returns queries and keys of matching heads, and what they tell.

    Args:
        inputs: float32 [2, P, K, H], what enters a layer: words at places in
            either text.
        around: [2, P, 2, H], the same of [CLS] and [SEP].
        weights: [K], how much a word counts.
        heads: N.
        width: D.
        generator: Mixes the directions.

    Returns:
        N queries, N keys, and the value 1 - n. Each head takes the directions
        that those before it left, and when there are no more, the first ones
        again.
    """
    share = weights / weights.sum()
    of_texts = inputs.mean(axis=1, dtype=np.float64)  # [2, K, H]
    of_words = of_texts.mean(axis=0)
    middle = share @ of_words  # [H]
    words = of_words - middle  # [K, H]
    between = (words * share[:, None]).T @ words
    hidden = len(middle)
    within = np.zeros([hidden, hidden])  # of one word, by text and place
    for at_place in inputs.reshape([-1, *of_words.shape]):
        rest = at_place - of_words
        within += (rest * share[:, None]).T @ rest
    within /= inputs.shape[0] * inputs.shape[1]
    within += RIDGE * np.trace(between) / hidden * np.eye(hidden)
    marks = around.mean(axis=(0, 1), dtype=np.float64) - middle  # [2, H]
    within += marks.T @ marks
    root = np.linalg.inv(np.linalg.cholesky(within))
    ratios, vectors = np.linalg.eigh(root @ between @ root.T)
    usable = max(1, int((ratios > LEAST_RATIO).sum()))
    directions = root.T @ vectors[:, : -1 - usable : -1]  # the best ones first
    deviations = np.einsum("hd,hg,gd->d", directions, between, directions)
    directions /= np.sqrt(deviations)
    kept = width - 2
    # Mixed, the better half tells any word about as well as any other.
    mixed = min(usable, max(kept, usable // 2))
    mixture = generator.standard_normal([mixed, mixed])
    directions = directions[:, :mixed] @ np.linalg.qr(mixture)[0]
    # (x - m) . sign is -1 or 1, (x - m) . nowhere 1 at [CLS] and [SEP], both
    # as little as can be of anything else.
    apart = share @ (of_texts[1] - of_texts[0]) / 2
    sign = np.linalg.solve(between + within, apart)
    sign /= sign @ apart
    nowhere = np.linalg.solve(between + within, marks.T)
    nowhere = nowhere @ np.linalg.pinv(marks @ nowhere) @ np.ones(len(marks))
    root_width = width**0.5  # by which the layer divides scores
    gain = (EQUAL * root_width / kept) ** 0.5
    text_gain = (OTHER_TEXT * root_width) ** 0.5
    queries: list[Look] = []
    keys: list[Look] = []
    for head in range(heads):
        some = directions[:, (head * kept + np.arange(kept)) % mixed]
        query = np.column_stack(
            [gain * some, -text_gain * sign, np.zeros(hidden)]
        )
        key = np.column_stack(
            [gain * some, text_gain * sign, NOWHERE * root_width * nowhere]
        )
        queries.append(Look(query, np.eye(width)[-1] - middle @ query))
        keys.append(Look(key, -middle @ key))
    return queries, keys, Look(-nowhere, 1 + middle @ nowhere)


def _count(
    examples: Iterable[Example], vocabulary: Vocabulary
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the words of texts, how much each counts, and places."""
    counts = np.zeros(len(vocabulary))
    longest = 0
    for example in examples:
        for packed in example.sequences:
            np.add.at(counts, packed.ids, 1)
            longest = max(longest, len(packed.ids))
    # [UNK] may be two words, and the others are none.
    for name in SPECIAL_TOKENS:
        if name in vocabulary.ids:
            counts[vocabulary.ids[name]] = 0
    words = np.argsort(-counts, kind="stable")[:MOST_WORDS]
    words = words[counts[words] > 0]
    if len(words) < 2:
        raise UserError(
            "recipe: `matching_heads` compare words, and the training rows "
            "have fewer than two: set matching_heads=0"
        )
    places = np.linspace(0, longest - 1, MOST_PLACES, dtype=int)
    # By roots, or the ten most frequent words would decide alone.
    return words, np.sqrt(counts[words]), np.unique(places)


def first_inputs(
    encoder: AlbertEncoder, words: Sequence[int], places: np.ndarray
) -> np.ndarray:
    """Returns what the first layer is given: float32 [2, P, K, H]."""

    def hidden(text: int, place: int) -> np.ndarray:
        ids = tf.constant([list(words)], tf.int32)
        found = encoder.embeddings(
            ids,
            input_type_ids=tf.fill(tf.shape(ids), text),
            input_position_ids=tf.fill(tf.shape(ids), place),
            training=False,
        )
        if encoder.embedding_hidden_mapping_in is not None:
            found = encoder.embedding_hidden_mapping_in(found)
        return tf.cast(found, tf.float32).numpy()

    return np.stack(
        [[hidden(text, place) for place in places] for text in (0, 1)]
    )


def _width(block: AttentionBlock) -> int:
    config = block.config
    return config.hidden_size // config.num_attention_heads
