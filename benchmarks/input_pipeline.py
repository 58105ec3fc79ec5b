"""Measures how fast records become masked batches: examples per CPU-second.

CPU seconds are of the whole process, so other work on the machine does not
count. The first batches (tracing, filling the shuffle window) are left out.

python benchmarks/input_pipeline.py --data_dir records --batch_size 256
"""

import time
from collections.abc import Sequence

from albert_tf2 import command_line
from albert_tf2.recipes import PretrainRecipe


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the rate of each stage."""
    parser = command_line.parser(__doc__)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--batch_size", type=int, default=256)
    parser.add_argument("--batches", type=int, default=100)
    arguments = parser.parse_args(argv)

    import tensorflow as tf

    from albert_tf2.pretraining.recipe_parts import create_masker
    from albert_tf2.records import pipeline
    from albert_tf2.records.record_set import open_records

    records = open_records(arguments.data_dir)
    config = PretrainRecipe().model_config()
    if records.vocab_size:
        config = config.replace(vocab_size=records.vocab_size)
    masker = create_masker(PretrainRecipe(), records, config)

    def measure(name: str, dataset: tf.data.Dataset) -> None:
        iterator = iter(dataset)
        for _ in range(10):
            next(iterator)
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(arguments.batches):
            next(iterator)
        cpu = time.process_time() - cpu
        wall = time.perf_counter() - wall
        rows = arguments.batches * arguments.batch_size
        print(
            f"{name:<24} {rows / cpu:>9,.0f} examples/CPU-s "
            f"{rows / wall:>9,.0f} examples/s",
            flush=True,
        )

    print(
        f"{records.records:,} {records.kind} records of "
        f"{records.max_seq_length}, batch {arguments.batch_size}"
    )
    windows = pipeline._Windows(records, 1, 20_000)
    strings = windows.dataset(0).rebatch(
        arguments.batch_size, drop_remainder=True
    )
    measure("read and shuffle", strings)
    if records.kind == "compact":
        measure(
            "... and parse",
            strings.map(records.parse),
        )
    measure(
        "... and mask (training)",
        pipeline.training_dataset(
            records, masker, global_batch_size=arguments.batch_size, seed=1
        ),
    )
    return 0


if __name__ == "__main__":
    command_line.run(main)
