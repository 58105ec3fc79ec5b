"""Weights on disk: ours, TensorFlow 1's two layouts, Hugging Face's.

    >>> model = load_pretrained("albert_tiny_zh")        # downloads, once
    >>> model = load_pretrained("chinese_albert/")       # a folder
    >>> model = load_pretrained("albert_tiny.zip")       # an archive
    >>> model = load_pretrained("workdir/checkpoints/ckpt-2000")
    >>> save_pretrained(model, "my_albert/")

Each is read completely or refused; see docs/checkpoints.md.
"""

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from albert_tf2 import paths
from albert_tf2.checkpoints import download, locate
from albert_tf2.config import AlbertConfig
from albert_tf2.errors import UserError
from albert_tf2.text.text_settings import TextSettings
from albert_tf2.text.tokenization import VOCAB_FILE

# What needs TensorFlow is imported where it is used: a wrong path or name is
# said before TensorFlow loads.
if TYPE_CHECKING:
    from albert_tf2.checkpoints.weights import Weights
    from albert_tf2.model.albert import AlbertPretrainer

# What a fine-tuned model's folder may hold (see `finetuning.encoders`).
TASK_FILE = "task.json"
HUB_ENCODER = "hub_encoder"

__all__ = ["load_pretrained", "read_weights", "save_pretrained"]


def load_pretrained(
    source: str | os.PathLike, *, config: AlbertConfig | None = None
) -> "AlbertPretrainer":
    """Loads a model of any supported form, completely or not at all.

    Args:
        source: A folder, a checkpoint's prefix, an archive (.zip, .tar.gz),
            a URL of one, or a released model's name; local or in a bucket.
            The folder may hold a TensorFlow 1 checkpoint of either layout,
            one of ours, a Hugging Face model or a hub export.
        config: The configuration, where the source has none.

    Returns:
        The model, with `.config`, `.vocab_file` (a path, or None) and
        `.text_settings` (how its texts become tokens, or None).

    Raises:
        UserError: If anything is missing, unused or of another shape.
    """
    found = read_weights(source, config=config)

    from albert_tf2.checkpoints import weights

    return weights.to_model(found)


def read_weights(
    source: str | os.PathLike, *, config: AlbertConfig | None = None
) -> "Weights":
    """Reads arrays and configuration without building a model.

    Args:
        source: As for `load_pretrained`.
        config: As for `load_pretrained`.

    Returns:
        The float32 arrays by TensorFlow 1 name, the configuration, and where
        they came from.

    Raises:
        UserError: As for `load_pretrained`.
    """
    here = download.local_path(source)
    if download.is_url(source) or not paths.is_remote(source):
        return _read(here, source, config)
    with paths.named(source, str(here)):
        found = _read(here, source, config)
    return dataclasses.replace(found, source=os.fspath(source))


def _read(
    here: Path, source: str | os.PathLike, config: AlbertConfig | None
) -> "Weights":
    if (here / "model" / TASK_FILE).is_file():
        here = here / "model"  # a fine-tuning run's folder
    location = locate.locate(here)
    if (location.folder / HUB_ENCODER).is_dir():
        raise UserError(
            f"{source} was tuned on a hub encoder, whose weights lie in a "
            "SavedModel under names of its own: python -m albert_tf2"
            ".hub_export.export --what serving publishes it whole"
        )
    if config is None and location.config_file is None:
        config = download.shipped_config(source)

    from albert_tf2.checkpoints import huggingface, native, task_head
    from albert_tf2.checkpoints import tf1 as tf1_layouts
    from albert_tf2.checkpoints.bundle import Bundle

    if location.kind == "huggingface":
        found = huggingface.read(location, config)
    elif Bundle(location.weights).is_object_based:
        found = native.read(location.weights, _configuration(location, config))
        if location.kind == "hub":
            found = dataclasses.replace(found, kind="hub")
    else:
        values = config or _config_values(location)
        found = tf1_layouts.read(
            location.weights, values, str(location.config_file)
        )
    vocab_file = location.vocab_file
    found = task_head.read_task(found, location.folder / TASK_FILE)
    return dataclasses.replace(
        found,
        vocab_file=vocab_file,
        text_settings=TextSettings.beside(
            vocab_file or location.folder / VOCAB_FILE
        )
        or found.text_settings,
    )


def _configuration(
    location: locate.Location, config: AlbertConfig | None
) -> AlbertConfig:
    if config is not None:
        return config
    return AlbertConfig.from_dict(
        _config_values(location), source=str(location.config_file)
    )


def _config_values(location: locate.Location) -> dict[str, Any]:
    if location.config_file is None:
        raise UserError(
            f"{location.folder} has no albert_config.json: the number of "
            "layers and heads is written nowhere else; put the one that "
            "came with the checkpoint (or one of configs/) beside it, or name "
            "one (--config, or `config=`)"
        )
    return paths.read_json(location.config_file)


def __getattr__(name: str):
    if name == "save_pretrained":
        from albert_tf2.checkpoints.native import save_pretrained

        return save_pretrained
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
