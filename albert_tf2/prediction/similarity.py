"""How alike two sentences are: cosines that mean something.

The vectors of a pre-trained model lie in a narrow cone, so that any two
sentences have a cosine near 1. Whitening (Su et al., 2103.15316) moves the
mean of a sample of sentences to 0 and its covariance to the identity; it needs
no labels, some thousand sentences and a second.
"""

from typing import NamedTuple

import numpy as np

from albert_tf2 import paths
from albert_tf2.errors import UserError


class Whitening(NamedTuple):
    """x -> (x - mean) kernel.

    Attributes:
        mean: [H].
        kernel: [H, k].
    """

    mean: np.ndarray
    kernel: np.ndarray

    @classmethod
    def fit(
        cls, embeddings: np.ndarray, dimensions: int | None = None
    ) -> "Whitening":
        """Fits on a sample of embeddings [N, H].

        Args:
            embeddings: More rows than `dimensions`, better ten times as many.
            dimensions: k, the directions of largest variance; None keeps all.
        """
        count, width = embeddings.shape
        dimensions = min(dimensions or width, width)
        if count <= dimensions:
            raise UserError(
                f"whitening to {dimensions} dimensions needs more sentences "
                f"than that. Received: {count}"
            )
        mean = embeddings.mean(axis=0, dtype=np.float64)
        covariance = np.cov(embeddings.T.astype(np.float64))
        directions, variances, _ = np.linalg.svd(covariance)
        # Directions without variance carry rounding alone.
        kept = variances > variances[0] * 1e-10
        scale = np.where(kept, 1 / np.sqrt(np.where(kept, variances, 1.0)), 0)
        kernel = (directions * scale)[:, :dimensions]
        return cls(mean.astype(np.float32), kernel.astype(np.float32))

    def __call__(self, embeddings: np.ndarray) -> np.ndarray:
        return (embeddings - self.mean) @ self.kernel

    def save(self, path: paths.PathLike) -> None:
        with paths.atomic_file(path, "wb") as stream:
            np.savez(stream, mean=self.mean, kernel=self.kernel)

    @classmethod
    def load(cls, path: paths.PathLike) -> "Whitening":
        with paths.open_binary(path) as stream:
            try:
                with np.load(stream, allow_pickle=False) as arrays:
                    return cls(arrays["mean"], arrays["kernel"])
            except (OSError, ValueError, KeyError) as error:
                raise UserError(
                    f"{path} is not a whitening written by this program "
                    f"({error})"
                ) from None


def unit(vectors: np.ndarray) -> np.ndarray:
    """Scales each row to length 1; a zero row stays zero."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.maximum(norms, 1e-12)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns the cosine of each row of `a` with that of `b`: [N]."""
    return np.sum(unit(a) * unit(b), axis=-1)


class PairFigures(NamedTuple):
    """How well scores tell similar pairs (1) from others (0).

    Attributes:
        auc: Chance that a similar pair scores above another: 0.5 is useless.
        spearman: Rank correlation of scores and labels; 0 where all scores
            are equal.
        accuracy: At the best threshold.
        threshold: That threshold: pairs with at least this score are called
            similar; infinite where it is best to call none so.
    """

    auc: float
    spearman: float
    accuracy: float
    threshold: float


def pair_figures(scores: np.ndarray, labels: np.ndarray) -> PairFigures:
    """Measures scores [N] against labels [N] of 0 and 1."""
    scores, labels = np.asarray(scores), np.asarray(labels)
    positive = int(labels.sum())
    negative = len(labels) - positive
    if not positive or not negative:
        raise UserError("a measure of pairs needs labels 0 and labels 1")
    ranks = _ranks(scores)
    # The Mann-Whitney form of the area under the curve.
    auc = ranks[labels == 1].sum() - positive * (positive + 1) / 2
    # A threshold cannot part equal scores: only these come into question.
    thresholds = np.append(np.unique(scores), np.inf)
    below = np.searchsorted(np.sort(scores[labels == 0]), thresholds)
    missed = np.searchsorted(np.sort(scores[labels == 1]), thresholds)
    right = below + positive - missed
    best = int(right.argmax())
    spearman = 0.0
    if len(thresholds) > 2:
        spearman = np.corrcoef(ranks, _ranks(labels))[0, 1]
    return PairFigures(
        auc=float(auc / (positive * negative)),
        spearman=float(spearman),
        accuracy=float(right[best] / len(labels)),
        threshold=float(thresholds[best]),
    )


def _ranks(values: np.ndarray) -> np.ndarray:
    """Returns ranks from 1; equal values share their mean rank."""
    _, inverse, counts = np.unique(
        values, return_inverse=True, return_counts=True
    )
    last = np.cumsum(counts)
    return ((last - counts + 1 + last) / 2)[inverse]
