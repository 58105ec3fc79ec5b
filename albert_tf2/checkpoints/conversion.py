"""One table of targets: how each is written, and how it is run again."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from albert_tf2 import features, paths
from albert_tf2.checkpoints import (
    certificate,
    huggingface,
    huggingface_bert,
    huggingface_folder,
    locate,
    native,
    onnx_format,
    read_weights,
    task_head,
    tf1,
    weights,
)
from albert_tf2.checkpoints.certificate import Arrays
from albert_tf2.checkpoints.weights import Weights
from albert_tf2.errors import UserError
from albert_tf2.paths import saved_models

HUB_COMMAND = "albert_tf2.hub_export.export"


POOLER = {f"bert/pooler/dense/{part}" for part in ("kernel", "bias")}


class Target(NamedTuple):
    """`write` returns TensorFlow 1 name -> name in the target."""

    write: Callable[[Weights, Path], Mapping[str, str | list[str]]]
    run: Callable[[Path, Arrays], Arrays]


def _run_ours(folder: Path, inputs: Arrays) -> Arrays:
    found = read_weights(folder)
    return certificate.run(weights.to_model(found), inputs, found.heads, found)


def _write_hub(found: Weights, folder: Path) -> dict[str, str]:
    """Exports in a process of its own: this package never imports hub_export.

    It writes the encoder and its preprocessor, and verifies both itself.
    """
    if task_head.has_head(found):
        raise UserError(
            f"{found.source} is a fine-tuned model, and a hub encoder has no "
            f"place for its head: python -m {HUB_COMMAND} --what serving "
            "publishes it whole"
        )
    if task_head.pooling_of(found):
        raise UserError(
            f"{found.source} was tuned for sentence vectors, which a "
            "checkpoint's own encoder does not pool: python -m "
            f"{HUB_COMMAND} --what encoder publishes one that does"
        )
    if found.vocab_file is None:
        raise UserError(
            f"no vocab.txt lies beside {found.source}: a hub export needs the "
            "model's vocabulary there"
        )
    with paths.temporary_folder("convert") as checkpoint:
        variable_map = native.write(found, Path(checkpoint))
        command = [sys.executable, "-m", HUB_COMMAND]
        command += ["--checkpoint", checkpoint, "--export_dir", str(folder)]
        finished = subprocess.run(command, capture_output=True, text=True)
    if finished.returncode:
        last = (finished.stderr.strip() or "no message").split("\n")[-1]
        raise UserError(
            f"the hub export failed: {last.removeprefix('error: ')}"
        )
    return {name: f"pretrainer/{path}" for name, path in variable_map.items()}


def _run_hub(folder: Path, inputs: Arrays) -> Arrays:
    """Runs the encoder's SavedModel, not our code over its variables."""
    import tensorflow as tf

    loaded = saved_models.load(locate.locate(folder).folder)
    tensors = {
        name: tf.constant(inputs[name]) for name in features.ENCODER_INPUTS
    }
    outputs = dict(loaded(tensors))
    if hasattr(loaded, "mlm"):
        name = features.MASKED_LM_POSITIONS
        outputs |= loaded.mlm({**tensors, name: tf.constant(inputs[name])})
    if hasattr(loaded, "sop"):
        outputs |= loaded.sop(tensors)
    compared = (
        features.SEQUENCE_OUTPUT,
        features.POOLED_OUTPUT,
        features.MLM_LOGITS,
        features.SOP_LOGITS,
    )
    return {name: outputs[name].numpy() for name in compared if name in outputs}


TARGETS = {
    "tf2": Target(native.write, _run_ours),
    "tf1": Target(tf1.write, _run_ours),
    "huggingface": Target(huggingface.write, huggingface_folder.run),
    "huggingface-bert": Target(huggingface_bert.write, huggingface_folder.run),
    "hub": Target(_write_hub, _run_hub),
    "onnx": Target(onnx_format.write, onnx_format.run),
}


def convert(
    found: Weights,
    target: str,
    output: paths.PathLike,
    *,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Converts, proves the result equal, and keeps it only then.

    Args:
        found: The source.
        target: A key of `TARGETS`.
        output: The folder to create.
        overwrite: Replace an existing folder.

    Returns:
        The certificate, also written as `output/conversion.json`.
    """
    write, run = TARGETS[target]
    if target.startswith("huggingface"):
        found = task_head.rescaled(found)
    with paths.atomic_directory(output, overwrite=overwrite) as folder:
        variable_map = write(found, folder)
        inputs = certificate.fixed_inputs(found.config)
        expected = certificate.run(
            weights.to_model(found), inputs, found.heads, found
        )
        if not set(variable_map) >= POOLER & set(found.arrays):
            # A class whose head reads tokens has no pooler to compare.
            del expected[features.POOLED_OUTPUT]
        if target.startswith("huggingface"):
            # Their classes do not pool: what the vector is stands beside.
            expected.pop(task_head.EMBEDDING, None)
        difference = certificate.differences(
            expected, run(folder, inputs), inputs
        )
        limits = certificate.tolerances(found, inputs, expected)
        return certificate.write(
            folder, found, target, variable_map, difference, limits
        )
