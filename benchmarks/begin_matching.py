"""Gives two heads of a trained model a new beginning: they compare two texts.

What `finetune --set matching_heads=2` does before tuning on pairs, as a step
of the starter's way: another run of pre-training goes on from there, so that
masked words may get back what the two heads did for them (not tried yet,
docs/log.md). The records must be of the model's vocabulary; words count by the
root of how often they come in the held-out ones.

    python benchmarks/begin_matching.py --model starter --data_dir records \\
        --output matching
    python -m albert_tf2.pretrain --init_checkpoint matching ...
"""

from collections.abc import Iterator, Sequence

import tensorflow as tf

from albert_tf2 import command_line, features, load_pretrained
from albert_tf2.checkpoints.native import save_pretrained
from albert_tf2.finetuning import matching_heads
from albert_tf2.pretraining.recipe_parts import create_masker
from albert_tf2.recipes import PretrainRecipe
from albert_tf2.records import pipeline
from albert_tf2.records.record_set import open_records
from albert_tf2.tasks.encoding import Example, Packed
from albert_tf2.text.tokenization import Tokenizer
from albert_tf2.training.workers import Workers

HEADS = 2
SEED = 20191001


def examples(batches: tf.data.Dataset, mask_id: int) -> Iterator[Example]:
    """Yields the rows of batches, without their masked words."""
    for batch in batches:
        rows = (batch[name].numpy() for name in features.ENCODER_INPUTS)
        inputs = dict(zip(features.ENCODER_INPUTS, rows, strict=True))
        words = inputs[features.INPUT_WORD_IDS]
        seen = (inputs[features.INPUT_MASK] == 1) & (words != mask_id)
        types = inputs[features.INPUT_TYPE_IDS]
        for row, kept in enumerate(seen):
            packed = Packed(
                words[row, kept].tolist(), types[row, kept].tolist()
            )
            yield Example(row, (packed,))


def main(argv: Sequence[str] | None = None) -> int:
    """Writes a checkpoint to go on from."""
    parser = command_line.parser(__doc__)
    parser.add_argument("--model", default="starter")
    parser.add_argument("--data_dir", required=True, help="records")
    parser.add_argument("--output", required=True, help="a new folder")
    arguments = parser.parse_args(argv)
    model = load_pretrained(arguments.model)
    records = open_records(arguments.data_dir)
    batches = pipeline.evaluation_dataset(
        open_records(arguments.data_dir, "eval"),
        create_masker(PretrainRecipe(), records, model.config),
        batch_size=32,
        seed=1,
    )
    vocabulary = Tokenizer(f"{arguments.data_dir}/vocab.txt").vocabulary
    matching_heads.check(model.encoder, HEADS)
    matching_heads.begin(
        model.encoder,
        HEADS,
        examples(batches, vocabulary.mask_id),
        vocabulary=vocabulary,
        seed=SEED,
        workers=Workers(),
    )
    save_pretrained(model, arguments.output)
    return 0


if __name__ == "__main__":
    command_line.run(main)
