"""Proof of a conversion: both models run, and the difference is written down.

A conversion is finished only when its result was read back, run on fixed
inputs beside the source, and agreed with it; `conversion.json` says so.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from albert_tf2 import __version__, features, paths
from albert_tf2.checkpoints import task_head, weights
from albert_tf2.checkpoints.weights import Weights
from albert_tf2.config import AlbertConfig
from albert_tf2.errors import UserError
from albert_tf2.model.albert import AlbertPretrainer

FILE_NAME = "conversion.json"
# Right from wrong: another gelu costs 1e-4 or more, another LayerNorm epsilon
# 2e-5 or more; rounding in another order costs less, in most models.
TOLERANCE = 2e-5
# Two programs were seen apart by three times what one bit of the weights costs.
ROUNDINGS = 8
SEED = 20191001
BATCH, LENGTH, PREDICTIONS = 4, 32, 4

Arrays = dict[str, np.ndarray]


def fixed_inputs(config: AlbertConfig) -> Arrays:
    """Returns the same int32 inputs every time: pairs, some with padding."""
    rng = np.random.default_rng(SEED)
    length = min(LENGTH, config.max_position_embeddings)
    ids = rng.integers(0, config.vocab_size, [BATCH, length])
    lengths = np.linspace(length, length // 2, BATCH).astype(int)
    mask = np.arange(length) < lengths[:, None]
    types = np.arange(length) >= lengths[:, None] // 2
    types = types & mask & (config.type_vocab_size > 1)
    positions = rng.integers(0, length // 2, [BATCH, PREDICTIONS])
    return {
        features.INPUT_WORD_IDS: np.where(mask, ids, 0).astype(np.int32),
        features.INPUT_MASK: mask.astype(np.int32),
        features.INPUT_TYPE_IDS: types.astype(np.int32),
        features.MASKED_LM_POSITIONS: positions.astype(np.int32),
    }


def run(
    model: AlbertPretrainer,
    inputs: Arrays,
    heads: Sequence[str],
    tuned: Weights | None = None,
) -> Arrays:
    """Runs a model; the outputs of untrained heads are left out.

    Args:
        model: The model.
        inputs: From `fixed_inputs`.
        heads: Its pre-training heads that were trained.
        tuned: Weights whose task's head is run on top, if they have one.
    """
    outputs = model(inputs, training=False)
    kept = [features.SEQUENCE_OUTPUT, features.POOLED_OUTPUT]
    kept += [f"{head}_logits" for head in heads]
    found = {name: outputs[name].numpy() for name in kept}
    if tuned is not None and task_head.has_head(tuned):
        found[task_head.LOGITS] = task_head.logits(tuned, found).numpy()
    if tuned is not None and task_head.pooling_of(tuned):
        found[task_head.EMBEDDING] = task_head.embedding(
            tuned, found, inputs[features.INPUT_MASK]
        ).numpy()
    return found


def differences(
    expected: Mapping[str, np.ndarray],
    actual: Mapping[str, np.ndarray],
    inputs: Mapping[str, np.ndarray],
) -> dict[str, float]:
    """Returns the largest difference per output, over real tokens."""
    if set(expected) != set(actual):
        raise UserError(
            f"the result has the outputs {', '.join(sorted(actual))} and not "
            f"{', '.join(sorted(expected))}"
        )
    real = inputs[features.INPUT_MASK].astype(bool)
    found = {}
    for name, reference in expected.items():
        value = actual[name]
        per_token = name == task_head.LOGITS and value.ndim == 3
        if name == features.SEQUENCE_OUTPUT or per_token:
            # What stands at padding is nobody's business.
            value, reference = value[real], reference[real]
        difference = np.abs(value.astype(np.float64) - reference)
        # A NaN is a difference, too.
        found[name] = float(np.max(np.nan_to_num(difference, nan=np.inf)))
    return found


def tolerances(
    found: Weights, inputs: Arrays, expected: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """Returns the largest difference of each output that rounding explains.

    How much a model makes of a rounding, its weights decide: logits of words
    that it tells apart are large; a pre-LN model never normalises the sum of
    its layers; a word whose embeddings hardly vary is enlarged by LayerNorm. So
    it is measured: the model runs once more with each weight one bit off.

    Args:
        found: The source.
        inputs: From `fixed_inputs`.
        expected: What the source computes of them.
    """
    rng = np.random.default_rng(SEED)
    factors = np.array([1 - 2**-23, 1 + 2**-23], np.float32)

    def one_bit_off(arrays: Mapping[str, np.ndarray]) -> Arrays:
        return {
            name: array * rng.choice(factors, array.shape)
            for name, array in arrays.items()
        }

    near = dataclasses.replace(
        found,
        arrays=one_bit_off(found.arrays),
        task_arrays=one_bit_off(found.task_arrays),
    )
    moved = run(weights.to_model(near), inputs, found.heads, near)
    moved = {name: moved[name] for name in expected}
    return {
        name: max(TOLERANCE, ROUNDINGS * cost if np.isfinite(cost) else 0.0)
        for name, cost in differences(expected, moved, inputs).items()
    }


def write(
    folder: Path,
    found: Weights,
    target: str,
    variable_map: Mapping[str, str | list[str]],
    difference: Mapping[str, float],
    limits: Mapping[str, float],
) -> dict[str, Any]:
    """Writes `conversion.json`, or raises if the models disagree.

    Args:
        folder: The conversion's result.
        found: The source.
        target: The target's kind, as `--to` names it.
        variable_map: TensorFlow 1 name -> name in the target.
        difference: What `differences` returned.
        limits: What `tolerances` returned.
    """
    worst = max(difference, key=lambda name: difference[name] / limits[name])
    if not difference[worst] <= limits[worst]:
        raise UserError(
            f"the {target} model differs from its source: `{worst}` by "
            f"{difference[worst]:.1e}, more than {limits[worst]:.1e}: nothing "
            "was kept"
        )
    original = {name: spelling for spelling, name in found.variable_map.items()}
    certificate = {
        "tool": f"albert_tf2 {__version__}",
        "source": {
            "kind": found.kind,
            "files": paths.describe_files(found.files),
        },
        "target": {
            "kind": target,
            "files": paths.describe_files(
                sorted(path for path in folder.rglob("*") if path.is_file()),
                folder,
            ),
        },
        "config": found.config.to_dict(),
        "parameters": sum(array.size for array in found.arrays.values()),
        "heads": list(found.heads),
        "left_out": {
            "optimizer_slots_and_counters": found.dropped,
            "task_head": sorted(set(found.task_arrays) - set(variable_map)),
            "encoder": sorted(
                name
                for name in set(found.arrays) - set(variable_map)
                if name.startswith("bert/")
            ),
        },
        "task": _task(found),
        "inputs": f"seed {SEED}, {BATCH} x {LENGTH} tokens at most",
        "max_abs_difference": dict(difference),
        "tolerance": dict(limits),
        "variable_map": {
            original.get(name, name): place
            for name, place in variable_map.items()
        },
    }
    paths.write_json(folder / FILE_NAME, certificate)
    return certificate


def _task(found: Weights) -> dict[str, Any] | None:
    """Returns what a fine-tuned model is for; None for others."""
    if task_head.pooling_of(found):
        return {
            "kind": found.task_kind,
            "pooling": task_head.pooling_of(found),
        }
    if not task_head.has_head(found):
        return None
    return {"kind": found.task_kind, "labels": list(found.task_labels)}
