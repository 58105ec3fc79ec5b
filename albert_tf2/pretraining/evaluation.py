"""Held-out evaluation: every example once, on any strategy."""

import numpy as np
import tensorflow as tf

from albert_tf2.model.albert import AlbertPretrainer
from albert_tf2.pretraining.step import EvaluationStep, evaluation_metrics
from albert_tf2.records import pipeline
from albert_tf2.records.masking import Masker
from albert_tf2.records.pipeline import Records
from albert_tf2.training.distribution import distributed

# Held-out masks are drawn apart from the training masks, always the same.
SEED = 1


class Evaluator:
    """Computes losses and accuracies of a model as it stands."""

    def __init__(
        self,
        model: AlbertPretrainer,
        strategy: tf.distribute.Strategy,
        records: Records,
        held_out: Records,
        masker: Masker | None,
        *,
        batch_size: int,
        depth: int | None = None,
    ):
        """Counts the training records' labels.

        Args:
            model: Under the strategy's scope.
            strategy: What the model is distributed by.
            records: Whose frequencies are the baseline.
            held_out: What to evaluate on.
            masker: For compact records.
            batch_size: Rows at a time, of all replicas; the figures do not
                depend on it.
            depth: Apply the first so many layers alone (`growth`).
        """
        self.held_out = held_out
        replicas = strategy.num_replicas_in_sync
        self.batch_size = max(batch_size // replicas, 1) * replicas
        step = EvaluationStep(
            model,
            pipeline.unigram_log_probs(
                records, masker, model.config.vocab_size
            ),
            depth,
        )

        @tf.function(autograph=False)
        def one_step(iterator):
            sums = strategy.run(step, (next(iterator),))
            return strategy.experimental_local_results(sums)[0]

        self._one_step = one_step
        # Made once: what it does is traced anew with each dataset.
        self._batches = distributed(
            strategy,
            lambda share: pipeline.evaluation_dataset(
                held_out,
                masker,
                batch_size=self.batch_size,
                seed=SEED,
                **share,
            ),
        )

    def evaluate(self) -> dict[str, float]:
        """Returns means over every held-out example once.

        Returns:
            `loss`, `{mlm,sop}_{loss,accuracy}`, `unigram_loss` (of always
            guessing by character frequency), `examples` (pairs) and
            `masked_tokens`.
        """
        iterator = iter(self._batches)
        total = np.zeros([])
        for _ in range(-(-self.held_out.records // self.batch_size)):
            total = total + self._one_step(iterator).numpy().astype(np.float64)
        return evaluation_metrics(total)
