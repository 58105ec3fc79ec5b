"""A new run's first weights: another run's, if they mean the same here.

Shapes do not tell. Where layers share their weights, another number of heads
or layers fits as well, and so does every vocabulary of the same size; so the
configurations are compared field by field, the vocabularies token by token.

A new word may stand where the checkpoint's vocabulary has a free slot such as
`[unused21]`, or behind its last token (`grow`). It begins as the mean of the
tokens that stood for it until then, 糖尿病 as the mean of 糖, 尿 and 病, in the
word table and in the bias of the output alike: so its score is the mean of
theirs. Where none of them is known, it begins as in an untrained model.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from albert_tf2 import paths
from albert_tf2.checkpoints import names, read_weights, weights
from albert_tf2.checkpoints.weights import Weights
from albert_tf2.config import TRAINING_FIELDS, AlbertConfig
from albert_tf2.errors import UserError
from albert_tf2.model.albert import AlbertPretrainer
from albert_tf2.text import vocabulary_change
from albert_tf2.text.text_settings import TextSettings
from albert_tf2.text.tokenization import Tokenizer, Vocabulary

# Their rows are tokens: [V, E] and [V].
TOKEN_TABLES = (
    "bert/embeddings/word_embeddings",
    f"{names.MLM_SCOPE}output_bias",
)


def warm_start(
    model: AlbertPretrainer,
    source: paths.PathLike,
    *,
    vocabulary: Vocabulary | None,
    text_settings: TextSettings | None = None,
    grow: bool = False,
    say: Callable[[str], None] = print,
) -> None:
    """Copies the weights of any checkpoint that `load_pretrained` reads.

    Args:
        model: The new run's.
        source: See `checkpoints.load_pretrained`.
        vocabulary: The new run's; None where its records bring none.
        text_settings: Of the new run's texts; None leaves them uncompared.
        grow: Whether it may have more tokens than the checkpoint's.
        say: Receives what differs and is taken.

    Raises:
        UserError: If the weights would mean something else here.
    """
    found = read_weights(source)
    check_config(model.config, found.config, source, say=say)
    if text_settings is not None:
        _say_text_settings(
            found.text_settings or TextSettings(), text_settings, source, say
        )
    new_words = new_words_of(
        vocabulary, found, source, where="the records", grow=grow, say=say
    )
    if new_words:
        found = with_new_words(found, new_words, untrained=model)
    weights.fill(model, found)


def with_named_vocabulary(
    found: Weights,
    source: paths.PathLike,
    vocab_file: paths.PathLike,
    *,
    say: Callable[[str], None] = print,
) -> tuple[Weights, Tokenizer]:
    """Joins a checkpoint and the vocabulary that `--vocab_file` names.

    Args:
        found: The checkpoint, with or without a vocabulary of its own.
        source: How messages call it.
        vocab_file: Its own vocabulary, or that with new words in free slots.
        say: Receives the new words, or that nothing could be compared.
    """
    vocabulary = Vocabulary.load(vocab_file)
    new_words = new_words_of(
        vocabulary, found, source, where=str(vocab_file), grow=None, say=say
    )
    if new_words:
        untrained = AlbertPretrainer(found.config)
        found = with_new_words(found, new_words, untrained=untrained)
    settings = found.text_settings
    if settings is not None and found.vocab_file is not None:
        # They name the vocabulary that was compared just now.
        settings = dataclasses.replace(settings, vocab_sha256=None)
    return found, Tokenizer(
        vocabulary, settings or TextSettings.beside(vocab_file)
    )


def check_config(
    mine: AlbertConfig,
    theirs: AlbertConfig,
    source: paths.PathLike,
    *,
    say: Callable[[str], None],
) -> None:
    """Refuses another model; says what is only trained otherwise."""
    differing = theirs.differences(mine)
    differing.pop("vocab_size", None)  # the vocabularies tell
    other = [
        f"`{name}` is {there!r} there and {here!r} here"
        for name, (there, here) in differing.items()
        if name not in TRAINING_FIELDS
    ]
    if other:
        raise UserError(
            f"--init_checkpoint {source} does not fit the recipe's model: "
            f"{', '.join(other)}; take the configuration that came with it "
            "(--set model=its/albert_config.json)"
        )
    for name, (there, here) in differing.items():
        say(
            f"note: `{name}` was {there!r} in {source} and is {here!r} from "
            "now on"
        )


def _say_text_settings(theirs, mine, source, say):
    """Says what the checkpoint's texts were not: it may learn to be."""
    for name in ("do_lower_case", "normalize"):
        there, here = getattr(theirs, name), getattr(mine, name)
        if there != here:
            say(
                f"note: {source} was trained on texts with `{name}` {there}, "
                f"and the records have {here}: so will this model's texts"
            )


def new_words_of(
    vocabulary: Vocabulary | None,
    found: Weights,
    source: paths.PathLike,
    *,
    where: str,
    grow: bool | None,
    say: Callable[[str], None],
) -> dict[int, list[int]]:
    """Compares the vocabularies, and returns the words that are new.

    Args:
        vocabulary: The new run's.
        found: The checkpoint.
        source: How messages call it.
        where: How messages call the place of `vocabulary`.
        grow: Whether it may have more tokens than the checkpoint's; None
            where there is no such choice.
        say: Receives the new words, or that nothing could be compared.

    Returns:
        For each id that is new, the ids of the tokens that stood for its word
        until now.
    """
    size = found.config.vocab_size
    if found.vocab_file is None or vocabulary is None:
        if vocabulary is not None and len(vocabulary) != size:
            raise UserError(
                f"the vocabulary of {where} has {len(vocabulary)} tokens, "
                f"{source} a table of {size} and no vocab.txt: put the one "
                "that came with it beside it"
            )
        lacking = source if found.vocab_file is None else where
        say(
            f"note: no vocab.txt lies beside {lacking}, so it could not be "
            f"checked that the ids of {where} mean the same in {source}"
        )
        return {}
    before = Vocabulary.load(found.vocab_file, size=size)
    change = vocabulary_change.Change.between(before, vocabulary)
    remedy = f"use {found.vocab_file} for {where} too"
    if change.first_other is not None:
        place = vocabulary_change.sentence(
            change.first_other,
            before,
            vocabulary,
            where_before="the checkpoint",
            where_now=where,
        )
        raise UserError(
            f"--init_checkpoint {source} has another vocabulary: {place}; "
            f"{remedy}"
        )
    if change.added and not grow:
        more = "pass --set grow_vocabulary=true to grow its table, or "
        raise UserError(
            f"the vocabulary of {where} has {len(vocabulary)} tokens, that of "
            f"--init_checkpoint {source} has the first {size} of them: "
            f"{'' if grow is None else more}{remedy}"
        )
    found_pieces = vocabulary_change.pieces(
        change.new_words | change.added, before
    )
    _say_new_words(change, found_pieces, source, say)
    return found_pieces


def _say_new_words(change, pieces, source, say):
    for words, place in (
        (change.new_words, "in free slots of"),
        (change.added, "behind the last token of"),
    ):
        if words:
            say(
                f"note: {len(words):,} new words {place} {source}: "
                f"{vocabulary_change.listed(words)}; each begins as the mean "
                "of the tokens that stood for it until now"
            )
    unknown = {
        token_id: word
        for token_id, word in (change.new_words | change.added).items()
        if not pieces[token_id]
    }
    if unknown:
        say(
            f"note: {len(unknown):,} of them begin at random, since none of "
            f"their characters is known: {vocabulary_change.listed(unknown)}"
        )


def with_new_words(
    found: Weights,
    new_words: dict[int, list[int]],
    *,
    untrained: AlbertPretrainer,
) -> Weights:
    """Returns the weights with rows for new words.

    Args:
        found: The checkpoint.
        new_words: From `new_words_of`.
        untrained: A model with the new number of tokens; its rows are those
            of words about which nothing is known.
    """
    table = names.variables_by_name(untrained)
    arrays = dict(found.arrays)
    for name in TOKEN_TABLES:
        if name not in arrays:
            continue  # an encoder without heads
        known, fresh = arrays[name], table[name].numpy()
        grown = np.concatenate([known, fresh[len(known) :]])
        for token_id, pieces in new_words.items():
            grown[token_id] = (
                known[pieces].mean(axis=0) if pieces else fresh[token_id]
            )
        arrays[name] = grown
    config = found.config.replace(vocab_size=untrained.config.vocab_size)
    return dataclasses.replace(found, config=config, arrays=arrays)
