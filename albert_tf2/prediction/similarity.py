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
from albert_tf2.paths.arrays import read_arrays
from albert_tf2.tasks.regression import area_under_curve, correlation, ranks

# What a search compares at a time: 16,384 vectors of 312 numbers are 20 MB,
# their cosines with 1,024 queries 67 MB.
CHUNK, MOST_QUERIES = 16_384, 1_024


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
        if embeddings.shape[-1] != len(self.mean):
            raise UserError(
                f"the whitening is of vectors of {len(self.mean)} numbers, "
                f"and this model's have {embeddings.shape[-1]}: fit it on "
                "this model's (--whiten_with a file of sentences)"
            )
        return (embeddings - self.mean) @ self.kernel

    def save(self, path: paths.PathLike) -> None:
        with paths.atomic_file(path, "wb") as stream:
            np.savez(stream, mean=self.mean, kernel=self.kernel)

    @classmethod
    def load(cls, path: paths.PathLike) -> "Whitening":
        found = read_arrays(path)
        none = np.zeros(0)
        mean, kernel = found.get("mean", none), found.get("kernel", none)
        if not (
            mean.dtype.kind == kernel.dtype.kind == "f"
            and kernel.ndim == 2
            and mean.shape == kernel.shape[:1]
            and np.isfinite(mean).all()
            and np.isfinite(kernel).all()
        ):
            raise UserError(
                f"{path} is not a whitening written by this program: write "
                "it again with --save_whitening"
            )
        return cls(mean, kernel)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Scales each row to length 1; a zero row stays zero."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.maximum(norms, 1e-12)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns the cosine of each row of `a` with that of `b`: [N]."""
    return np.sum(unit(a) * unit(b), axis=-1)


def nearest(
    queries: np.ndarray,
    vectors: np.ndarray,
    *,
    top_k: int = 5,
) -> list[list[tuple[int, float]]]:
    """Finds the vectors with the largest cosines: exact, in flat memory.

    >>> vectors = np.load("vectors.npy", mmap_mode="r")
    >>> nearest(predictor.embed(["怎么还款"]), vectors, top_k=3)

    Args:
        queries: [Q, H].
        vectors: [N, H]; may lie in a file (`np.load(..., mmap_mode="r")`).
        top_k: How many for each query.

    Returns:
        For each query (index, cosine), the largest cosine first; of equal
        ones the smaller index.

    Raises:
        UserError: If the two are not of one width.
    """
    if queries.shape[-1] != vectors.shape[-1]:
        raise UserError(
            f"the vectors have {vectors.shape[-1]} numbers each, and those "
            f"they are compared with {queries.shape[-1]}: were they made by "
            "the same model?"
        )
    found: list[list[tuple[int, float]]] = []
    for first in range(0, len(queries), MOST_QUERIES):
        block = queries[first : first + MOST_QUERIES]
        found += _nearest(unit(np.asarray(block, np.float32)), vectors, top_k)
    return found


def _nearest(
    queries: np.ndarray, vectors: np.ndarray, top_k: int
) -> list[list[tuple[int, float]]]:
    """Searches for queries of length 1, all of them at a time."""
    best = [np.zeros([0], np.float32)] * len(queries)
    places = [np.zeros([0], np.int64)] * len(queries)
    for first in range(0, len(vectors), CHUNK):
        part = unit(np.asarray(vectors[first : first + CHUNK], np.float32))
        numbers = np.arange(first, first + len(part))
        for i, scores in enumerate(queries @ part.T):  # [Q, CHUNK]
            # The best so far stand in front: of equals they stay.
            scores = np.concatenate([best[i], scores])
            kept = _largest(scores, top_k)
            best[i] = scores[kept]
            places[i] = np.concatenate([places[i], numbers])[kept]
    return [
        [(int(i), float(score)) for i, score in zip(*row, strict=True)]
        for row in zip(places, best, strict=True)
    ]


def _largest(scores: np.ndarray, count: int) -> np.ndarray:
    """Returns the places of the largest [N], equal ones in their order."""
    reach = np.arange(len(scores))
    if count < len(scores):
        least = np.partition(scores, -count)[-count]
        reach = np.flatnonzero(scores >= least)
    return reach[np.argsort(-scores[reach], kind="stable")][:count]


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
    # A threshold cannot part equal scores: only these come into question.
    thresholds = np.append(np.unique(scores), np.inf)
    below = np.searchsorted(np.sort(scores[labels == 0]), thresholds)
    missed = np.searchsorted(np.sort(scores[labels == 1]), thresholds)
    right = below + positive - missed
    best = int(right.argmax())
    return PairFigures(
        auc=area_under_curve(scores, labels == 1),
        spearman=correlation(ranks(scores), ranks(labels)),
        accuracy=float(right[best] / len(labels)),
        threshold=float(thresholds[best]),
    )
