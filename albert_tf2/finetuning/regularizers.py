"""What may be added to the loss of fine-tuning.

R-Drop (2106.14448): two passes over the same rows, with other units dropped
    loss = (L(p) + L(q)) / 2 + alpha * (KL(p||q) + KL(q||p)) / 2
Distillation (1503.02531): a teacher's logits t beside the labels
    loss = (1 - w) * L + w * T^2 * KL(softmax(t / T) || softmax(s / T))

What is a distribution depends on the kind of task: over classes, choices, the
tags of a token, the tokens of a text (twice, for both ends of an answer); for
several labels one over yes and no for each. A score is the mean of a normal
distribution of variance 1/2, of which the squared error is the divergence, as
it is the loss.
"""

import tensorflow as tf

from albert_tf2 import settings
from albert_tf2.config import AlbertConfig
from albert_tf2.errors import UserError
from albert_tf2.recipes import FinetuneRecipe
from albert_tf2.tasks import base


def check(
    task: base.Task, recipe: FinetuneRecipe, config: AlbertConfig | None
) -> None:
    """Refuses settings that make no sense with a task, or with an encoder.

    Args:
        task: What is learned.
        recipe: How.
        config: Of the encoder; None for a hub encoder.
    """
    if task.kind == base.VECTORS:
        # Its losses are of a whole batch, and its answers no distributions.
        for name in ("r_drop", "teacher", "gradient_accumulation_steps"):
            given = getattr(recipe, name)
            off = settings.of(FinetuneRecipe)[name].default
            if given != off:
                raise UserError(
                    f"recipe: `{name}` is not for task {task.name}, whose "
                    "loss compares all rows of a batch with each other: set "
                    f"{name}={settings.spelled(off)}"
                )
        if recipe.matching_heads:
            raise UserError(
                "recipe: `matching_heads` look from one text of an input into "
                f"the other, and task {task.name} reads each text by itself: "
                "set matching_heads=0"
            )
    if recipe.gradient_checkpointing and config is None:
        raise UserError(
            "recipe: `gradient_checkpointing` computes layers again, which a "
            "hub encoder keeps inside: start from a checkpoint, or set "
            "gradient_checkpointing=false"
        )
    if recipe.r_drop and config is not None:
        rates = (
            recipe.classifier_dropout,
            config.hidden_dropout_prob,
            config.attention_probs_dropout_prob,
        )
        if not any(rates):
            raise UserError(
                "recipe: `r_drop` compares two draws of dropout, and nothing "
                "is dropped here: set hidden_dropout_prob=0.1, or r_drop=0"
            )


def r_drop(
    kind: str, first: tf.Tensor, second: tf.Tensor, weights: tf.Tensor
) -> tf.Tensor:
    """Returns the sum of weight * (KL(p||q) + KL(q||p)) / 2: a scalar.

    With logits a and b that is sum((p - q) * (a - b)) / 2: what normalizes
    them goes out, for p and q have the same sum.

    Args:
        kind: One of the kinds in `base`.
        first: Logits of `TaskModel`.
        second: Those of another pass over the same rows.
        weights: As for `model.loss_sum`.
    """
    if kind == base.REGRESSION:
        return tf.reduce_sum(weights * tf.square(first - second)[:, 0])
    first, second = _by_answer(kind, first), _by_answer(kind, second)
    shares = tf.sigmoid if kind == base.MULTI_LABEL else tf.nn.softmax
    apart = (shares(first) - shares(second)) * (first - second) / 2
    if kind != base.MULTI_LABEL:
        apart = tf.reduce_sum(apart, -1)
    return tf.reduce_sum(weights * apart)


def distillation(
    kind: str,
    logits: tf.Tensor,
    teacher: tf.Tensor,
    weights: tf.Tensor,
    *,
    temperature: float,
) -> tf.Tensor:
    """Returns the sum of weight * T^2 * KL(teacher||student): a scalar.

    T^2 keeps the gradients as large as the labels' (1503.02531, section 2).
    Scores have no temperature.

    Args:
        kind: One of the kinds in `base`.
        logits: The student's, of `TaskModel`.
        teacher: Float32, of the same shape.
        weights: As for `model.loss_sum`.
        temperature: T.
    """
    if kind == base.REGRESSION:
        return tf.reduce_sum(weights * tf.square(logits - teacher)[:, 0])
    student = _by_answer(kind, logits) / temperature
    teacher = _by_answer(kind, teacher) / temperature
    if kind == base.MULTI_LABEL:
        # Yes and no: x of the cross entropies is that of the two softmaxes.
        apart = tf.nn.sigmoid_cross_entropy_with_logits(
            labels=tf.sigmoid(teacher), logits=student
        ) - tf.nn.sigmoid_cross_entropy_with_logits(
            labels=tf.sigmoid(teacher), logits=teacher
        )
    else:
        apart = tf.reduce_sum(
            tf.nn.softmax(teacher)
            * (tf.nn.log_softmax(teacher) - tf.nn.log_softmax(student)),
            -1,
        )
    return temperature**2 * tf.reduce_sum(weights * apart)


def _by_answer(kind: str, logits: tf.Tensor) -> tf.Tensor:
    """Puts what a softmax runs over last."""
    if kind == base.SPAN:
        return tf.transpose(logits, [0, 2, 1])  # [B, 2, T]
    return logits
