"""Where the encoder of a fine-tuning run comes from, and how it is kept.

A fine-tuned model is a folder:

    task.json      task, labels, lengths, the head's shape, measured figures
    vocab.txt      the vocabulary, and text_settings.json beside it
    model.index, model.data-*          encoder and head
    albert_config.json                 or hub_encoder/, a SavedModel whose
                                       weights `model` replaces
"""

import dataclasses
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf

from albert_tf2 import checkpoints, features, paths, settings
from albert_tf2.checkpoints import (
    bundle,
    download,
    native,
    repositories,
    warm_start,
    weights,
)
from albert_tf2.checkpoints.bundle import Bundle
from albert_tf2.checkpoints.native import CONFIG_FILE, PREFIX
from albert_tf2.config import AlbertConfig, load_model_config
from albert_tf2.errors import UserError
from albert_tf2.finetuning.model import TaskHead, TaskModel
from albert_tf2.finetuning.vectors import VectorModel
from albert_tf2.keras_api import keras
from albert_tf2.model.albert import AlbertEncoder
from albert_tf2.paths import saved_models
from albert_tf2.tasks import base, registry
from albert_tf2.tasks.sentence_vectors import SentenceVectors
from albert_tf2.text import vocabulary_change
from albert_tf2.text.text_settings import TextSettings
from albert_tf2.text.tokenization import VOCAB_FILE, Tokenizer, Vocabulary

TASK_FILE = base.TASK_FILE
HUB_FOLDER = "hub_encoder"
# Of nearly every BERT and ALBERT, where nothing tells.
DEFAULT_POSITIONS = 512


@dataclasses.dataclass
class LoadedEncoder:
    """An encoder with what belongs to it.

    Attributes:
        encoder: `AlbertEncoder` or `hub.KerasLayer`.
        tokenizer: Of the texts that it was trained on.
        positions: The most tokens that it takes.
        config: The model's configuration; None for a hub encoder.
        hub_folder: Where a hub encoder's SavedModel lies.
    """

    encoder: keras.layers.Layer
    tokenizer: Tokenizer
    positions: int
    config: AlbertConfig | None = None
    hub_folder: Path | None = None

    @property
    def hidden_size(self) -> int:
        if self.config is not None:
            return self.config.hidden_size
        one = tf.ones([1, 2], tf.int32)
        outputs = self.encoder(dict.fromkeys(features.ENCODER_INPUTS, one))
        return int(outputs[features.POOLED_OUTPUT].shape[-1])


def load_encoder(
    source: str,
    *,
    vocab_file: paths.PathLike | None = None,
    dropout: dict[str, float] | None = None,
    say: Callable[[str], None] = print,
) -> LoadedEncoder:
    """Loads the encoder to start from.

    Args:
        source: What `load_pretrained` reads; a folder with a SavedModel or a
            hub handle (https://...); or a configuration's name with
            `config:` before it, for random weights.
        vocab_file: The vocabulary, where none lies beside the weights, or
            the one that does with new words in its free slots.
        dropout: Fields of the configuration to change.
        say: Receives what is not as it was.
    """
    if source.startswith("config:"):
        config = load_model_config(source.removeprefix("config:"))
        config = config.replace(**dropout or {})
        if vocab_file is None:
            raise UserError(f"{source} needs --vocab_file: it has no own")
        return own_encoder(AlbertEncoder(config), Tokenizer(vocab_file), config)
    if is_hub(source):
        return _load_hub(source, vocab_file)
    found = checkpoints.read_weights(source)
    if vocab_file is None:
        tokenizer = weights.tokenizer_of(found, source)
    else:
        found, tokenizer = warm_start.with_named_vocabulary(
            found, source, vocab_file, say=say
        )
    config = found.config.replace(**dropout or {})
    model = weights.to_model(dataclasses.replace(found, config=config))
    return own_encoder(model.encoder, tokenizer, config)


def own_encoder(
    encoder: AlbertEncoder, tokenizer: Tokenizer, config: AlbertConfig
) -> LoadedEncoder:
    """Joins one of our encoders and what belongs to it."""
    tokenizer.vocabulary.check_size(config.vocab_size)
    positions = config.max_position_embeddings
    return LoadedEncoder(encoder, tokenizer, positions, config)


def is_hub(source: str) -> bool:
    """Whether a source is a SavedModel: a folder, or a handle."""
    source = repositories.here(source)
    if download.is_url(source):
        return not source.endswith((".zip", ".gz", ".tgz"))
    return paths.is_file(paths.join(source, saved_models.SAVED_MODEL))


def hub_folder(source: str) -> str:
    """Returns the local folder of a SavedModel, fetched if need be."""
    source = repositories.here(source)
    if not download.is_url(source):
        return paths.fetched(source)
    import tensorflow_hub as hub

    return hub.resolve(source)


def _load_hub(source: str, vocab_file: paths.PathLike | None) -> LoadedEncoder:
    folder = Path(hub_folder(source))
    layer = _hub_layer(folder)
    inside = folder / "assets" / VOCAB_FILE
    if vocab_file is None and not inside.is_file():
        raise UserError(
            f"{source} has no vocab.txt inside: name one with --vocab_file"
        )
    if vocab_file is not None and inside.is_file():
        # A SavedModel's table is not ours to put new words into.
        vocabulary_change.refuse_other(
            Vocabulary.load(inside),
            Vocabulary.load(vocab_file),
            where_before=source,
            where_now=str(vocab_file),
        )
    settings = TextSettings.beside(inside)
    if settings is None:  # another program's: TF Hub's API has this flag
        lowers = getattr(layer.resolved_object, "do_lower_case", True)
        settings = TextSettings(do_lower_case=bool(lowers))
    return LoadedEncoder(
        layer,
        Tokenizer(vocab_file or inside, settings),
        _hub_positions(layer, source),
        hub_folder=folder,
    )


def _hub_layer(folder: Path) -> keras.layers.Layer:
    import tensorflow_hub as hub

    with saved_models.loading(folder):
        # TensorFlow's reader ends the process at forged shapes.
        Bundle(folder / "variables" / "variables")
        return hub.KerasLayer(str(folder), trainable=True)


def _hub_positions(layer: keras.layers.Layer, source: str) -> int:
    """Returns the rows of the position table, whoever wrote the encoder."""
    for variable in layer.variables:
        if "position_embedding" in variable.name and variable.shape.rank >= 2:
            return int(variable.shape[-2])  # [S, W]
    warnings.warn(
        f"{source} has no table of position embeddings: it is taken to read "
        f"at most {DEFAULT_POSITIONS} tokens",
        stacklevel=2,
    )
    return DEFAULT_POSITIONS


def build(
    task: base.Task,
    loaded: LoadedEncoder,
    *,
    dropout: float = 0.1,
    seed: int | None = None,
) -> TaskModel:
    """Puts the task's head on an encoder; its first weights from a seed."""
    if isinstance(task, SentenceVectors):
        return VectorModel(
            loaded.encoder, task.pooling, task.loss, name=task.kind
        )
    config = loaded.config
    head = TaskHead(
        task.num_outputs,
        loaded.hidden_size,
        dropout=dropout,
        normalize=config is not None and config.ln_type == "preln",
        initializer_range=config.initializer_range if config else 0.02,
        seed=seed,
        name="head",
    )
    return TaskModel(loaded.encoder, head, task.kind, name=task.kind)


def save(
    folder: paths.PathLike,
    *,
    model: TaskModel,
    task: base.Task,
    loaded: LoadedEncoder,
    lengths: base.Lengths,
    facts: dict[str, Any] | None = None,
) -> None:
    """Writes a fine-tuned model (see the module), whole or not at all."""
    with paths.atomic_directory(folder, overwrite=True) as temporary:
        tf.train.Checkpoint(model=model).write(str(temporary / PREFIX))
        if loaded.config is not None:
            loaded.config.to_json(temporary / CONFIG_FILE)
        elif loaded.hub_folder is not None:
            shutil.copytree(loaded.hub_folder, temporary / HUB_FOLDER)
        loaded.tokenizer.save(temporary)
        paths.write_json(
            temporary / TASK_FILE,
            {
                **task.describe(),
                "hidden_size": loaded.hidden_size,
                "lengths": dataclasses.asdict(lengths),
                **(facts or {}),
            },
        )


def load(
    folder: paths.PathLike,
) -> tuple[base.Task, TaskModel, LoadedEncoder, base.Lengths]:
    """Reads what `save` wrote: task, model, its encoder, lengths."""
    here = paths.fetched(folder)
    with paths.named(folder, here):
        return _load(Path(here))


def _load(
    folder: Path,
) -> tuple[base.Task, TaskModel, LoadedEncoder, base.Lengths]:
    task_file = folder / TASK_FILE
    description = paths.read_json(task_file, dict)
    try:
        task = registry.from_description(description)
    except UserError as error:
        raise UserError(f"{task_file}: {error}") from error
    tokenizer = Tokenizer(folder)
    if (folder / HUB_FOLDER).is_dir():
        hub_folder = folder / HUB_FOLDER
        layer = _hub_layer(hub_folder)
        positions = _hub_positions(layer, str(hub_folder))
        loaded = LoadedEncoder(
            layer, tokenizer, positions, hub_folder=hub_folder
        )
        model = build(task, loaded)
        _restore(model, folder / PREFIX)
    else:
        # Whole and checked, before anything is as large as a file says.
        found = _weights(folder)
        weights.check_config(found)
        loaded = own_encoder(
            AlbertEncoder(found.config), tokenizer, found.config
        )
        model = build(task, loaded)
        weights.fill_tuned(model, found)
    lengths = _lengths(description, task_file, loaded.positions)
    return task, model, loaded, lengths


def _weights(folder: Path) -> weights.Weights:
    """Reads what `save` wrote, or what `convert` made of it elsewhere."""
    if not paths.is_file(folder / f"{PREFIX}.index"):
        return checkpoints.read_weights(folder)
    config = AlbertConfig.from_json(folder / CONFIG_FILE)
    return native.read(folder / PREFIX, config)


def _restore(model: TaskModel, prefix: Path) -> None:
    """Reads weights by the model's own objects: a hub encoder has no names."""
    Bundle(prefix)  # TensorFlow's reader ends the process at forged shapes
    try:
        tf.train.Checkpoint(model=model).read(
            str(prefix)
        ).assert_existing_objects_matched().expect_partial()
    except (tf.errors.OpError, AssertionError, *bundle.READ_ERRORS) as error:
        raise bundle.damaged(prefix, bundle.first_line(error)) from error


def _lengths(description: Any, source: Path, positions: int) -> base.Lengths:
    values = description.get("lengths")
    if not isinstance(values, dict):
        raise UserError(
            f"{source}: `lengths` is damaged: fine-tune again, or put the "
            "file back that was written with the model"
        )
    lengths = settings.create(base.Lengths, values, f"{source}: lengths")
    if lengths.max_seq_length > positions:
        raise UserError(
            f"{source}: `max_seq_length` is {lengths.max_seq_length}, more "
            f"than the model's {positions} positions"
        )
    return lengths
