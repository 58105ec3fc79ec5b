"""What a pre-training run is, and what lies beside its checkpoints."""

import tensorflow as tf

from albert_tf2 import paths
from albert_tf2.checkpoints.fingerprint import fingerprint
from albert_tf2.config import AlbertConfig
from albert_tf2.errors import UserError
from albert_tf2.recipes import PretrainRecipe
from albert_tf2.records.record_set import RecordSet
from albert_tf2.training import run_folder
from albert_tf2.training.distribution import described
from albert_tf2.training.identity import PRETRAINING, Fingerprint, Identity


def identity_of(
    recipe: PretrainRecipe,
    config: AlbertConfig,
    records: RecordSet,
    held_out: RecordSet | None,
    *,
    init_checkpoint: paths.PathLike | None = None,
    strategy: tf.distribute.Strategy | None = None,
) -> Identity:
    """Describes a run that is asked for.

    Args:
        recipe: How to train.
        config: The model that the recipe resolves to.
        records: What to train on.
        held_out: What to evaluate on, if there is anything.
        init_checkpoint: What a new run starts from.
        strategy: What it runs on.
    """
    subsets = {"train": records}
    if held_out is not None:
        subsets["eval"] = held_out
    start = None
    if init_checkpoint is not None:
        try:
            start = Fingerprint(*fingerprint(init_checkpoint))
        except UserError as error:
            # A run that goes on does without it; a new one will say this.
            start = Fingerprint(str(error), None)
    return Identity(
        kind=PRETRAINING,
        recipe=recipe,
        model=config,
        vocabulary=records.vocabulary(),
        data={
            name: Fingerprint(f"{subset.records:,} records", subset.sha256)
            for name, subset in subsets.items()
        },
        init_checkpoint=start,
        devices=described(strategy) if strategy else "",
    )


def put_beside(
    workdir: paths.PathLike, config: AlbertConfig, records: RecordSet
) -> None:
    """Writes what checkpoints need to be used: configuration, vocabulary."""
    paths.write_json(
        paths.join(workdir, run_folder.CONFIG_FILE), config.to_dict()
    )
    tokenizer = records.tokenizer()
    if tokenizer is not None:
        tokenizer.save(workdir)
