"""What a recipe resolves to: model, masker, rate."""

import tensorflow as tf

from albert_tf2.config import AlbertConfig
from albert_tf2.errors import UserError
from albert_tf2.recipes import PretrainRecipe
from albert_tf2.records.masking import Masker
from albert_tf2.records.record_set import ClassicRecords, RecordSet
from albert_tf2.text.tokenization import Vocabulary
from albert_tf2.training import optimization


def model_config(recipe: PretrainRecipe, records: RecordSet) -> AlbertConfig:
    """Returns the recipe's model, checked against the records."""
    config = recipe.model_config()
    from_data = recipe.vocab_size_from_data or recipe.grow_vocabulary
    if from_data and records.vocab_size:
        config = config.replace(vocab_size=records.vocab_size)
    if records.vocab_size not in (None, config.vocab_size):
        raise UserError(
            f"{records.folder} was built with a vocabulary of "
            f"{records.vocab_size} tokens, but {recipe.model} has "
            f"{config.vocab_size}: build the records with the model's "
            "vocabulary, or pass --set vocab_size_from_data=true (with "
            "--init_checkpoint, for a vocabulary that is the checkpoint's "
            "and more: --set grow_vocabulary=true)"
        )
    longest = min(recipe.max_seq_length, config.max_position_embeddings)
    if records.max_seq_length > longest:
        raise UserError(
            f"{records.folder} holds rows of {records.max_seq_length} tokens, "
            f"but the recipe's limit is {longest}: build the records with "
            f"--max_seq_length {longest}, or raise `max_seq_length` (and the "
            "model's `max_position_embeddings`)"
        )
    return config


def check_shares(recipe: PretrainRecipe, replicas: int) -> None:
    """Refuses a batch that does not divide among replicas and parts."""
    parts = recipe.gradient_accumulation_steps
    if recipe.global_batch_size % (replicas * parts):
        raise UserError(
            "recipe: `global_batch_size` must be divisible by the number of "
            f"replicas, {replicas}, times `gradient_accumulation_steps`. "
            f"Received: `global_batch_size={recipe.global_batch_size}` and "
            f"`gradient_accumulation_steps={parts}`"
        )


def create_masker(
    recipe: PretrainRecipe, records: RecordSet, config: AlbertConfig
) -> Masker | None:
    """Returns what masks compact records; None for classic ones."""
    if isinstance(records, ClassicRecords):
        return None
    return Masker(
        Vocabulary.load(records.vocab_file, size=config.vocab_size),
        max_seq_length=records.max_seq_length,
        max_predictions_per_seq=predictions_of(recipe, records),
        masked_lm_prob=recipe.masked_lm_prob,
        max_ngram=recipe.max_ngram,
        label_style=recipe.label_style,
    )


def predictions_of(recipe: PretrainRecipe, records: RecordSet) -> int:
    """Returns P: classic records bring their own.

    Others get no more places than `masked_lm_prob` of a full row can fill:
    the head is the dearest part of a small model, used or not.
    """
    if isinstance(records, ClassicRecords):
        return records.max_predictions_per_seq
    most = round(recipe.masked_lm_prob * records.max_seq_length)
    return max(1, min(recipe.max_predictions_per_seq, most))


def create_schedule(
    recipe: PretrainRecipe, *, scale: tf.Variable | None = None
) -> optimization.WarmupLinearDecay:
    """Returns the recipe's learning rate, scaled for its batch."""
    return optimization.WarmupLinearDecay(
        optimization.scaled_learning_rate(
            recipe.learning_rate,
            recipe.global_batch_size,
            recipe.scale_learning_rate_from,
        ),
        train_steps=recipe.train_steps,
        warmup_steps=recipe.warmup_steps,
        end_learning_rate=recipe.end_learning_rate,
        scale=scale,
    )
