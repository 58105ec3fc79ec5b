"""Watches the losses: stops nonsense, and says in words what looks wrong."""

import dataclasses
import math

from albert_tf2.errors import UserError

# A run that learns does not come back to half again its best loss: single
# batches may, so a moving average of about 10 steps is looked at.
MEMORY = 0.9
EXPLOSION_FACTOR, EXPLOSION_MARGIN = 1.5, 1.0
# Held-out SOP accuracy within this of one half is a coin, and so few pairs
# cannot tell.
CHANCE, FEW_PAIRS = 0.02, 100


class Diverged(UserError):
    """The loss is not a number any more, or exploded."""


@dataclasses.dataclass
class Guard:
    """Follows the loss of every step."""

    average: float | None = None
    best: float = math.inf

    def check(
        self, step: int, losses: list[float], norms: list[float] | None = None
    ) -> None:
        """Looks at the losses of some steps.

        Args:
            step: How many steps were done before these.
            losses: One per step.
            norms: The gradients', where the weights took whatever came: they
                are lost a step before the loss tells.

        Raises:
            Diverged: Naming the steps.
        """
        first, last = step + 1, step + len(losses)
        for number, loss in enumerate(losses, start=first):
            for name, value in (
                ("loss", loss),
                ("gradient's norm", norms[number - first] if norms else 0.0),
            ):
                if not math.isfinite(value):
                    raise Diverged(
                        f"the {name} became {value} at step {number} (steps "
                        f"{first} to {last} ran together)"
                    )
            if self.average is None:
                self.average = loss
            self.average = MEMORY * self.average + (1 - MEMORY) * loss
            self.best = min(self.best, self.average)
            limit = EXPLOSION_FACTOR * self.best + EXPLOSION_MARGIN
            if self.average > limit:
                raise Diverged(
                    f"the loss exploded: its average rose from {self.best:.3f}"
                    f" to {self.average:.3f} by step {number}"
                )


def remarks(evaluation: dict[str, float]) -> list[str]:
    """Returns sentences about an evaluation of a model that was trained."""
    found = []
    accuracy, pairs = evaluation["sop_accuracy"], evaluation["examples"]
    # Twice the spread of a coin thrown so often: else it is noise.
    noise = max(CHANCE, 1 / math.sqrt(max(pairs, 1.0)))
    if pairs >= FEW_PAIRS and abs(accuracy - 0.5) < noise:
        found.append(
            f"SOP is at chance ({accuracy:.1%} of {pairs:.0f} pairs): the "
            "sentence order is not learned (yet). Likely causes: too few "
            "steps (SOP starts late), a rate that is too high, segments too "
            "short to tell, or records of shuffled lines instead of documents"
        )
    mlm, unigram = evaluation["mlm_loss"], evaluation["unigram_loss"]
    if mlm > unigram:
        found.append(
            f"MLM is below the unigram baseline (loss {mlm:.3f}, always "
            f"guessing by character frequency {unigram:.3f}): the model does "
            "not use its context. Likely causes: too few steps, a rate that "
            "is too high or too low, or records of another vocabulary"
        )
    return found
