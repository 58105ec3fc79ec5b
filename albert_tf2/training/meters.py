"""What is measured between two logged rows: the metrics, and the time."""

import math
import time
from collections.abc import Sequence

import numpy as np
import tensorflow as tf


class Interval(tf.Module):
    """Means of the metrics of the steps since the last row.

    Saved with a run, so that its rows do not depend on where it was stopped.
    What is not finite is left out: one step whose gradients overflow would
    take the whole row with it.
    """

    def __init__(self, names: Sequence[str]):
        """Starts empty.

        Args:
            names: Of the metrics, in the order of a step's row.
        """
        super().__init__()
        self.names = tuple(names)
        # Sums, and of how many steps: float64 [2, M].
        self.sums = tf.Variable(np.zeros([2, len(names)]), trainable=False)

    def add(self, rows: np.ndarray) -> None:
        """Adds the rows of some steps: float32 [N, M]."""
        total = self.sums.numpy()
        # One after another: the sum does not depend on how steps were
        # grouped into calls.
        for row in rows.astype(np.float64):
            finite = np.isfinite(row)
            total += [np.where(finite, row, 0.0), finite]
        self.sums.assign(total)

    def take(self) -> tuple[dict[str, float], dict[str, int]]:
        """Returns the means, and of how many steps; starts anew."""
        sums, counts = self.sums.numpy().tolist()
        self.sums.assign(np.zeros([2, len(sums)]))
        means = [
            total / count if count else math.nan
            for total, count in zip(sums, counts, strict=True)
        ]
        return (
            dict(zip(self.names, means, strict=True)),
            dict(zip(self.names, map(int, counts), strict=True)),
        )


class Timer:
    """Wall time of training steps alone: no tracing, evaluating or saving."""

    def __init__(self):
        self._steps, self._seconds, self._began = 0, 0.0, 0.0

    def start(self) -> None:
        """Starts the clock for some steps."""
        self._began = time.perf_counter()

    def stop(self, steps: int) -> None:
        """Counts the steps since `start`; 0 leaves their time out."""
        if steps:
            self._steps += steps
            self._seconds += time.perf_counter() - self._began

    def speed(self) -> float | None:
        """Returns steps per second since the last call, if known."""
        steps, seconds = self._steps, self._seconds
        self._steps, self._seconds = 0, 0.0
        return steps / seconds if steps else None
