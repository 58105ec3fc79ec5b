"""Compiles a recipe's whole train step for a TPU, without having one.

The step (loss, gradients, accumulation, LAMB) is exported as an XLA program
and handed to Google's own TPU compiler, which runs on any CPU. It refuses
what a TPU cannot do (strings, dynamic shapes, calls to the host), and says
how much memory the step takes. Needs `pip install -e '.[tpu_check]'`.

    python -m albert_tf2.tpu_check --config configs/pretrain_tiny.yaml \\
        --topology v5e:2x2 --max_seq_length 512
"""

import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from albert_tf2 import command_line, paths
from albert_tf2.errors import UserError, cut, install_line
from albert_tf2.recipes import PretrainRecipe, load_recipe
from albert_tf2.settings import MAX_BATCH

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One core as XLA sees it, by the vendor's data sheets."""

    flops: float  # bfloat16 multiply-adds times two, per second
    memory: float  # bytes
    bandwidth: float  # bytes per second
    accelerator_type: str  # what libtpu wants to be told


CHIPS = {
    "v4": Chip(275e12 / 2, 32 * GIB / 2, 1228e9 / 2, "v4-8"),
    "v5e": Chip(197e12, 16 * GIB, 819e9, "v5litepod-4"),
    "v5p": Chip(459e12 / 2, 95 * GIB / 2, 2765e9 / 2, "v5p-8"),
    "v6e": Chip(918e12, 32 * GIB, 1640e9, "v6e-4"),
}
# No TPU is asked for: these keep libtpu from looking for one.
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    # Several may compile at once: there is no chip to quarrel about.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Compiles and reports; returns 0 if the recipe fits, else 1."""
    parser = command_line.parser(__doc__, prog="python -m albert_tf2.tpu_check")
    command_line.add_recipe(
        parser,
        PretrainRecipe,
        config="a recipe, as configs/pretrain_*.yaml",
        keys="python -m albert_tf2.pretrain",
    )
    parser.add_argument(
        "--topology",
        default="v5e:2x2",
        help="the chips: generation:shape (default: %(default)s)",
    )
    parser.add_argument(
        "--max_seq_length",
        metavar="N",
        help="the key of the recipe: tokens of a row",
    )
    command_line.add_number(
        parser,
        "--batch_per_core",
        None,
        "Rows at a time on a core; default: the recipe's share.",
        least=1,
        most=MAX_BATCH,
    )
    parser.add_argument(
        "--find_largest",
        action="store_true",
        help="also find the largest batch per core that fits (more compiles)",
    )
    arguments = parser.parse_args(argv)
    chip, cores = read_topology(arguments.topology)
    length = ("--max_seq_length", arguments.max_seq_length)
    recipe = load_recipe(
        PretrainRecipe,
        arguments.config,
        arguments.set,
        flags={"max_seq_length": length},
    )
    batch = arguments.batch_per_core or recipe.global_batch_size // (
        cores * recipe.gradient_accumulation_steps
    )
    if batch < 1:
        raise UserError(
            f"`global_batch_size={recipe.global_batch_size}` leaves nothing "
            f"for {cores} cores: raise it"
        )
    facts = compile_step(recipe, batch, arguments.topology)
    print(report(recipe, batch, facts, chip, arguments.topology))
    if arguments.find_largest:
        largest = largest_batch(recipe, batch, facts, arguments.topology)
        print(f"largest batch per core that fits: {largest}")
    return 0 if facts["fits"] else 1


def read_topology(topology: str) -> tuple[Chip, int]:
    """Returns the kind of core of "v5e:2x2", and how many there are."""
    name, _, shape = topology.partition(":")
    sizes = shape.split("x")
    # At most 9,999 chips a side: the largest pods have thousands in all.
    good = all(re.fullmatch("[1-9][0-9]{0,3}", size) for size in sizes)
    if name not in CHIPS or len(sizes) > 3 or not good:
        raise UserError(
            f"--topology must be one of {', '.join(CHIPS)}, a colon and a "
            f"shape such as 2x2. Received: --topology {cut(topology)}"
        )
    cores = 1
    for size in sizes:
        cores *= int(size)
    return CHIPS[name], cores


def export_step(recipe: PretrainRecipe, batch: int) -> str:
    """Returns the StableHLO text of one core's whole train step.

    Args:
        recipe: The recipe; precision as it says.
        batch: Rows of each of the `gradient_accumulation_steps` parts.
    """
    import tensorflow as tf

    from albert_tf2.model.albert import AlbertPretrainer
    from albert_tf2.pretraining.recipe_parts import create_schedule
    from albert_tf2.pretraining.step import PretrainStep
    from albert_tf2.training.optimization import recipe_optimizer
    from albert_tf2.training.precision import model_precision

    with model_precision(recipe.precision):
        model = AlbertPretrainer(recipe.model_config())
    optimizer = recipe_optimizer(
        recipe, create_schedule(recipe), model.trainable_variables
    )
    step = PretrainStep(
        model,
        optimizer,
        accumulation_steps=recipe.gradient_accumulation_steps,
        clip_norm=recipe.clip_norm,
        jit_compile=True,
        recompute=recipe.gradient_checkpointing,
        seed=recipe.seed,
    )
    rows = batch * recipe.gradient_accumulation_steps
    example = example_batch(recipe, rows)
    compiled = tf.function(step, jit_compile=True)
    try:
        text = compiled.experimental_get_compiler_ir(example, tf.constant(0))(
            stage="stablehlo"
        )
    except ValueError as error:
        if "Invalid stage" not in str(error):
            raise
        raise UserError(
            f"TensorFlow {tf.__version__} cannot write StableHLO, which the "
            "TPU compiler reads: use TensorFlow 2.20 and "
            f"{install_line('tpu_check')}"
        ) from error
    # TensorFlow leaves one op of another dialect per variable.
    return text.replace("mhlo.copy", "stablehlo.optimization_barrier")


def example_batch(recipe: PretrainRecipe, rows: int) -> dict[str, Any]:
    """Returns a batch of packed rows with the recipe's shapes, all ones."""
    import tensorflow as tf

    from albert_tf2 import features

    pairs = max(1, recipe.max_seq_length // 32)  # as the builder packs
    sizes = {
        features.CLS_POSITIONS: pairs,
        features.SENTENCE_ORDER_LABELS: pairs,
        features.SENTENCE_ORDER_WEIGHTS: pairs,
        features.MASKED_LM_POSITIONS: recipe.max_predictions_per_seq,
        features.MASKED_LM_IDS: recipe.max_predictions_per_seq,
        features.MASKED_LM_WEIGHTS: recipe.max_predictions_per_seq,
    }
    floats = (features.MASKED_LM_WEIGHTS, features.SENTENCE_ORDER_WEIGHTS)
    names = {
        *features.ENCODER_INPUTS,
        *features.PACKED_INPUTS,
        *features.LABELS,
        features.MASKED_LM_POSITIONS,
    }
    return {
        name: tf.ones(
            [rows, sizes.get(name, recipe.max_seq_length)],
            tf.float32 if name in floats else tf.int32,
        )
        for name in sorted(names)
    }


def compile_step(
    recipe: PretrainRecipe, batch: int, topology: str
) -> dict[str, Any]:
    """Compiles for a TPU in a process of its own.

    Returns:
        `fits`, `memory` (bytes: arguments, temporaries, and outputs that do
        not reuse arguments), `flops`, `bytes_accessed`; with `fits` False,
        `reason`.
    """
    with paths.temporary_folder("tpu_check") as folder:
        program = Path(folder) / "step.mlir"
        program.write_text(export_step(recipe, batch), encoding="utf-8")
        generation = topology.partition(":")[0]
        environment = ENVIRONMENT | {
            "TPU_ACCELERATOR_TYPE": CHIPS[generation].accelerator_type
        }
        # JAX and TensorFlow stay apart: each brings its own XLA.
        run = subprocess.run(
            [sys.executable, "-m", "albert_tf2.pretraining.tpu_compiler"]
            + [str(program), topology],
            env=os.environ | environment,
            capture_output=True,
            text=True,
        )
    if run.returncode:
        lines = run.stderr.strip().splitlines() or ["no message"]
        raise UserError(f"the TPU compiler failed: {lines[-1][:600]}")
    facts = json.loads(run.stdout.strip().splitlines()[-1])
    if "missing" in facts:
        raise UserError(facts["missing"])
    return facts


def largest_batch(
    recipe: PretrainRecipe, batch: int, facts: dict, topology: str
) -> int:
    """Finds the largest batch per core that compiles, to 1/8 of itself."""
    fitting, failing = 0, None
    while True:
        if facts["fits"]:
            fitting = batch
        else:
            failing = batch
        if failing is None:
            batch = fitting * 2
        elif failing - fitting <= max(1, fitting // 8):
            return fitting
        else:
            batch = (fitting + failing) // 2
        if batch < 1:
            return 0
        facts = compile_step(recipe, batch, topology)


def report(
    recipe: PretrainRecipe,
    batch: int,
    facts: dict[str, Any],
    chip: Chip,
    topology: str,
) -> str:
    """Returns what was found, a line per fact."""
    parts = recipe.gradient_accumulation_steps
    lines = [
        f"{recipe.model}: {batch} x {recipe.max_seq_length} per core, "
        f"{parts} part(s), {recipe.precision}, {recipe.optimizer}, for "
        f"{topology}"
    ]
    if not facts["fits"]:
        return "\n".join([*lines, f"does not fit: {facts['reason']}"])
    # XLA counts the body of the loop over parts once.
    work, traffic = parts * facts["flops"], parts * facts["bytes_accessed"]
    arithmetic, memory = work / chip.flops, traffic / chip.bandwidth
    seconds = max(arithmetic, memory)
    limit = "arithmetic" if arithmetic >= memory else "memory traffic"
    lines += [
        "compiles: yes",
        f"memory: {facts['memory'] / GIB:.2f} of {chip.memory / GIB:.0f} GiB "
        f"(arguments {facts['arguments'] / GIB:.2f}, temporary "
        f"{facts['temporary'] / GIB:.2f})",
        f"work per step and core: {work:.3g} FLOP, {traffic:.3g} bytes",
        f"bound: {1 / seconds:.3g} steps/s, {parts * batch / seconds:.4g} "
        f"rows/s per core, by {limit} at the vendor's peak",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    command_line.run(main)
