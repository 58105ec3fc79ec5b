"""The processes that train one model: what all of them must agree on.

Every worker takes part in every step, so none may leave, or start elsewhere,
on its own: the others would wait for it for ever. Before such a decision they
ask each other, at the same place of the program:

    >>> workers = Workers(strategy)
    >>> workers.any(sigterm_arrived)     # True on all of them, or on none
    >>> workers.values(step)             # [20, 20]

One process alone agrees with itself, at no cost.
"""

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from albert_tf2 import paths
from albert_tf2.errors import Preempted, UserError


class Workers:
    """This process among those of a strategy.

    Attributes:
        index: Its number; worker 0 writes what all share.
        count: How many there are.
    """

    def __init__(self, strategy: tf.distribute.Strategy | None = None):
        self.index, self.count = 0, 1
        self._strategy: Any = strategy
        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            resolver = strategy.cluster_resolver
            cluster = resolver.cluster_spec().as_dict() if resolver else {}
            chiefs = len(cluster.get("chief", []))
            self.count = max(1, chiefs + len(cluster.get("worker", [])))
            if self.count > 1:
                self.index = resolver.task_id
                if resolver.task_type == "worker":
                    self.index += chiefs

        @tf.function
        def add(mine):
            per_replica = self._strategy.run(lambda: mine)
            return self._strategy.reduce("SUM", per_replica, axis=None)

        self._add = add

    def values(self, value: int) -> list[int]:
        """Returns every worker's value; all must ask at the same place."""
        if self.count == 1:
            return [value]
        mine = tf.one_hot(self.index, self.count, dtype=tf.int64) * value
        totals = self._add(mine).numpy()
        return [int(total) // self._replicas() for total in totals]

    def _replicas(self) -> int:
        """Returns how many each of them has, all of which bring its value."""
        return self._strategy.num_replicas_in_sync // self.count

    def first(self, array: np.ndarray) -> np.ndarray:
        """Returns worker 0's array on all of them; all must ask at once.

        What each computes from the same data may differ in its last bits
        where their processors do, and weights must not.

        Args:
            array: float32, of the same shape on all of them.
        """
        if self.count == 1:
            return array
        mine = array if self.index == 0 else np.zeros_like(array)
        return self._add(tf.constant(mine)).numpy() / self._replicas()

    def any(self, flag: bool) -> bool:
        """Whether a flag stands on one of them; all must ask at once."""
        return any(self.values(int(flag)))

    def part(self) -> None:
        """Waits until all of them know what they were told before.

        Who leaves at once may take along the answer that another is still
        reading from it. All must ask at the same place; here, nobody minds
        when another is gone already.
        """
        with contextlib.suppress(tf.errors.OpError):
            self.values(0)

    def check_shared(self, folder: paths.PathLike) -> None:
        """Raises a `UserError` on all of them unless they see one folder."""
        if self.count == 1:
            return
        # A name that nobody has looked for yet: network disks remember for a
        # while that a file was not there.
        mark = random.SystemRandom().getrandbits(32) if self.index == 0 else 0
        path = paths.join(folder, f".workers-{mark}")
        if self.index == 0:
            with paths.atomic_file(path):
                pass
        path = paths.join(folder, f".workers-{self.values(mark)[0]}")
        seen = self.values(int(paths.exists(path)))
        if self.index == 0:
            paths.remove_file(path)
        if not all(seen):
            self.part()
            raise UserError(
                f"--workdir {folder} is not the same folder for all "
                f"{self.count} workers: worker {seen.index(0)} does not see "
                "what worker 0 writes there; name one that they share, on a "
                "network disk or in a bucket (gs://...)"
            )

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Turns the loss of another worker into one sentence, and code 75.

        TensorFlow notices within a minute that a process is gone.
        """
        try:
            yield
        except tf.errors.OpError as error:
            if self.count == 1 or "ollective" not in str(error):
                raise
            raise Preempted(
                f"worker {self.index} lost another of the {self.count} "
                "workers: see what ended that one; the same command on all "
                "of them goes on from the newest checkpoint"
            ) from error
