"""What a fine-tuning run is."""

import hashlib
import json
from typing import Any

import tensorflow as tf

from albert_tf2 import paths
from albert_tf2.checkpoints.fingerprint import fingerprint
from albert_tf2.config import load_model_config
from albert_tf2.errors import UserError
from albert_tf2.finetuning import encoders, teacher
from albert_tf2.recipes import FinetuneRecipe
from albert_tf2.tasks import base
from albert_tf2.text.tokenization import Vocabulary
from albert_tf2.training import run_folder
from albert_tf2.training.distribution import described
from albert_tf2.training.identity import FINETUNING, Fingerprint, Identity


def identity_of(
    task: base.Task,
    sources: dict[str, tuple[str, str]],
    recipe: FinetuneRecipe,
    init_checkpoint: str,
    *,
    vocab_file: paths.PathLike | None = None,
    strategy: tf.distribute.Strategy,
    kind: str = FINETUNING,
) -> Identity:
    """Describes a run that is asked for, as far as that needs no loading.

    Args:
        task: What to learn, prepared.
        sources: The names and the SHA-256 of each split's files.
        recipe: How.
        init_checkpoint: What it starts from (see `encoders.load_encoder`).
        vocab_file: The vocabulary, where it is named.
        strategy: What it runs on.
        kind: FINETUNING, SEVERAL_SEEDS or SWEEP.
    """
    try:
        start = Fingerprint(*_fingerprint(init_checkpoint))
    except UserError as error:
        # A finished run does without it; any other will say this.
        start = Fingerprint(str(error), None)
    data = {split: Fingerprint(*entry) for split, entry in sources.items()}
    if recipe.teacher is not None:
        # By what it is: its path may be another one tomorrow.
        try:
            data["teacher"] = Fingerprint(*teacher.fingerprint(recipe.teacher))
        except UserError as error:
            data["teacher"] = Fingerprint(str(error), None)
    return Identity(
        kind=kind,
        recipe=recipe,
        data=data,
        task=task.describe(),
        vocabulary=Vocabulary.load(vocab_file) if vocab_file else None,
        init_checkpoint=start,
        devices=described(strategy),
    )


def _fingerprint(source: str) -> tuple[str, str]:
    if source.startswith("config:"):
        config = load_model_config(source.removeprefix("config:"))
        text = json.dumps(config.to_dict())
        return source, hashlib.sha256(text.encode()).hexdigest()
    if encoders.is_hub(source):
        return source, fingerprint(encoders.hub_folder(source))[1]
    return fingerprint(source)


def results_of(
    workdir: paths.PathLike, what: Identity
) -> dict[str, Any] | None:
    """Returns the results of a finished run; None if it is not finished.

    Raises:
        UserError: If the results are of something else than what is asked for.
    """
    path = paths.join(workdir, run_folder.RESULTS_FILE)
    if not paths.exists(path):
        return None
    run_folder.check(workdir, what, finished=True)
    return paths.read_json(path, dict)
