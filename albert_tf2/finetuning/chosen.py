"""Which of several runs is the best, and how it becomes the folder's own."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

from albert_tf2 import paths

# What a run leaves for its user.
FOLDERS = ("model", "predictions", "report")


def of_seeds(runs: Sequence[dict[str, float] | None]) -> dict[str, Any]:
    """Returns mean and spread of each figure over the runs that have any.

    The spread is the sample's standard deviation.
    """
    found = [figures for figures in runs if figures]
    return {
        name: _mean_and_spread([figures[name] for figures in found])
        for name in (found[0] if found else ())
    }


def _mean_and_spread(values: list[float]) -> dict[str, Any]:
    # `stdev` fails on NaN, where `fmean` gives it back.
    known = all(map(math.isfinite, values))
    return {
        "mean": statistics.fmean(values),
        "spread": statistics.stdev(values) if known else math.nan,
        "values": values,
    }


def value_of(results: dict[str, Any], metric: str) -> float:
    """Returns a figure on the dev rows, its mean if there are several.

    One that is undefined, or not there, is worse than any.
    """
    value = (results.get("dev") or {}).get(metric, -math.inf)
    if isinstance(value, dict):
        value = value["mean"]
    return -math.inf if math.isnan(value) else value


def best(runs: Sequence[dict[str, Any]], metric: str) -> dict[str, Any]:
    """Returns the first run of the best figure on the dev rows."""
    return max(runs, key=lambda run: value_of(run, metric))


def take(source: paths.PathLike, workdir: paths.PathLike) -> None:
    """Copies what a run left to the folder that it is the best of."""
    for folder in FOLDERS:
        found = paths.join(source, folder)
        if not paths.exists(found):
            continue  # nothing was predicted
        goal = paths.join(workdir, folder)
        with paths.atomic_directory(goal, overwrite=True) as temporary:
            paths.copy_folder(found, temporary)
