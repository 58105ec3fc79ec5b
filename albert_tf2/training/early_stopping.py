"""Which evaluation was the best one, and when to wait no longer."""

import math
from collections.abc import Callable

import tensorflow as tf


class Best(tf.Module):
    """The best evaluation so far, and the patience for a better one.

    Attributes:
        value: In float64: a rounded figure would be beaten by itself.
        step: When it was.
        worse: How many evaluations came after it.
    """

    def __init__(
        self,
        keep: Callable[[int, dict[str, float]], None],
        *,
        metric: str,
        patience: int,
    ):
        """Starts without any.

        Args:
            keep: Called with step and figures of each new best.
            metric: The figure that counts; more is better. Without figures
                the last model is the best.
            patience: How many worse evaluations end the run; 0 = never.
        """
        super().__init__()
        self.keep, self.metric, self.patience = keep, metric, patience
        self.value = tf.Variable(-math.inf, dtype=tf.float64, trainable=False)
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.worse = tf.Variable(0, dtype=tf.int64, trainable=False)

    def update(self, step: int, figures: dict[str, float]) -> None:
        """Compares an evaluation with the best one so far, and keeps it."""
        value = figures[self.metric] if figures else math.inf
        is_first = int(self.step) == 0  # a figure may be undefined, NaN
        if figures and not is_first and not value > float(self.value):
            self.worse.assign_add(1)
            return
        self.value.assign(-math.inf if math.isnan(value) else value)
        self.step.assign(step)
        self.worse.assign(0)
        self.keep(step, figures)

    @property
    def is_final(self) -> bool:
        """Whether the patience is over."""
        return 0 < self.patience <= int(self.worse)
