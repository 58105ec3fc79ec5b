"""Gives feed-forward units that never answer a new beginning.

A unit of the shared block whose input is below zero for every token adds
nothing and, for lack of a gradient, learns nothing. Half of the starter's 1,248
units ended its first run like that. Their incoming weights are drawn anew and
their outgoing ones set to zero, so that the model computes what it did; a
second run of pre-training starts from there.

It is a step of the starter's way and no advice: after the second run nearly as
many units were silent again (docs/log.md).

    python benchmarks/revive_units.py --run run --data_dir records \\
        --output revived
    python -m albert_tf2.pretrain --init_checkpoint revived ...
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from albert_tf2 import command_line, features, load_pretrained
from albert_tf2.checkpoints.native import save_pretrained
from albert_tf2.model import layers
from albert_tf2.model.albert import AlbertPretrainer
from albert_tf2.pretraining.recipe_parts import create_masker
from albert_tf2.records import pipeline
from albert_tf2.records.record_set import open_records
from albert_tf2.training import run_folder
from albert_tf2.training.identity import PRETRAINING

# Below, GELU passes next to nothing on: its inputs are no larger.
LEAST_INPUT = 0.05
# Of the incoming weights that are drawn: as large as those of living units.
DEVIATION = 0.04
SEED = 20191001


def largest_inputs(
    model: AlbertPretrainer, batches: tf.data.Dataset
) -> np.ndarray:
    """Returns the largest GELU input of each unit of the shared block: [I]."""
    block = model.encoder.feed_forward_layers[0]
    largest = np.full(model.config.intermediate_size, -np.inf, np.float32)
    dense = block.intermediate_dense
    whole = dense.call

    def call(inputs: tf.Tensor) -> tf.Tensor:
        found = whole(inputs)
        np.maximum(largest, found.numpy().max(axis=0), out=largest)
        return found

    dense.call = call
    try:
        for batch in batches:
            inputs = {name: batch[name] for name in features.ENCODER_INPUTS}
            model.encoder(inputs, training=False)
    finally:
        dense.call = whole
    return largest


def revive(block: layers.FeedForwardBlock, units: np.ndarray) -> None:
    """Draws the weights into these units anew; what is computed stays.

    Args:
        block: The shared one.
        units: bool [I].
    """
    first, second = block.intermediate_dense, block.output_dense
    kernel, bias = first.kernel.numpy(), first.bias.numpy()
    generator = np.random.default_rng(SEED)
    kernel[:, units] = generator.normal(0, DEVIATION, kernel[:, units].shape)
    bias[units] = 0
    outgoing = second.kernel.numpy()
    outgoing[units] = 0
    first.kernel.assign(kernel)
    first.bias.assign(bias)
    second.kernel.assign(outgoing)


def main(argv: Sequence[str] | None = None) -> int:
    """Writes a checkpoint to go on from."""
    parser = command_line.parser(__doc__)
    parser.add_argument("--run", required=True, help="of pre-training")
    parser.add_argument("--data_dir", required=True, help="its records")
    parser.add_argument("--output", required=True, help="a new folder")
    parser.add_argument("--examples", type=int, default=512)
    arguments = parser.parse_args(argv)
    model = load_pretrained(arguments.run)
    records = open_records(arguments.data_dir)
    recipe = run_folder.read_recipe(arguments.run, PRETRAINING)
    batches = pipeline.evaluation_dataset(
        open_records(arguments.data_dir, "eval"),
        create_masker(recipe, records, model.config),
        batch_size=32,
        seed=1,
    ).take(-(-arguments.examples // 32))
    silent = largest_inputs(model, batches) <= LEAST_INPUT
    revive(model.encoder.feed_forward_layers[0], silent)
    save_pretrained(model, arguments.output)
    print(f"{silent.sum():,} of {silent.size:,} units begin anew")
    return 0


if __name__ == "__main__":
    command_line.run(main)
