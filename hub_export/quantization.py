"""What a quantized model lost, measured on real sentences.

    cosine       of a sentence's vector to its vector in float32: mean, least
    neighbours   how many sentences have the same nearest one among the others

A cosine near 1 says little alone: all sentences of an untrained or collapsed
model are near to each other. Who searches by vectors wants the neighbours.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from albert_tf2.errors import UserError

LOSSES_FILE = "quantization.json"
MOST_SENTENCES = 200
# Neighbours among fewer sentences tell nothing.
FEWEST_FOR_NEIGHBOURS = 50
LEAST_COSINE, LEAST_NEIGHBOURS = 0.99, 0.9


@dataclasses.dataclass(frozen=True)
class Loss:
    """How far vectors are from those in float32.

    Attributes:
        sentences: How many were compared.
        mean_cosine: To their vectors in float32.
        least_cosine: The same, of the worst sentence.
        neighbours: Share of sentences whose nearest one is the same; None
            where they are too few.
    """

    sentences: int
    mean_cosine: float
    least_cosine: float
    neighbours: float | None

    @property
    def is_too_much(self) -> bool:
        """Whether a user should not ship such a model unawares."""
        neighbours = 1.0 if self.neighbours is None else self.neighbours
        return self.mean_cosine < LEAST_COSINE or neighbours < LEAST_NEIGHBOURS

    def __str__(self) -> str:
        text = (
            f"cosine to fp32 {self.mean_cosine:.4f} on average and "
            f"{self.least_cosine:.4f} at least"
        )
        if self.neighbours is not None:
            text += f", {self.neighbours:.1%} of nearest neighbours kept"
        return f"{text} ({self.sentences} sentences)"

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def measured_on(sentences: Sequence[str]) -> list[str]:
    """Returns the sentences to compare on: each once, no blank ones.

    The last ones of the file, since the first ones chose int8's ranges.
    """
    distinct = dict.fromkeys(s.strip() for s in sentences if s.strip())
    return [*distinct][-MOST_SENTENCES:]


def loss(expected: np.ndarray, found: np.ndarray) -> Loss:
    """Compares vectors with those in float32.

    Args:
        expected: float32 [N, H], of the model in float32.
        found: float32 [N, H], of the quantized one; of any length.
    """
    expected, found = _unit(expected), _unit(found)
    cosines = (expected * found).sum(1)
    neighbours = None
    if len(expected) >= FEWEST_FOR_NEIGHBOURS:
        same = nearest(expected) == nearest(found)
        neighbours = float(same.mean())
    return Loss(
        len(expected), float(cosines.mean()), float(cosines.min()), neighbours
    )


def nearest(vectors: np.ndarray) -> np.ndarray:
    """Returns for each of N unit vectors the number of its nearest other."""
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -np.inf)
    return cosines.argmax(1)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def must_be_little(name: str, found: Loss, *, accept: bool) -> None:
    """Refuses a model that lost too much, unless the user takes it.

    Args:
        name: Of the file.
        found: What it lost.
        accept: Whether the user said so.
    """
    if found.is_too_much and not accept:
        raise UserError(
            f"{name} lost too much: {found}; at least {LEAST_COSINE} and "
            f"{LEAST_NEIGHBOURS:.0%} are asked for. Without "
            "--calibration_file there is no full int8 model; with "
            "--accept_loss it is written all the same"
        )
