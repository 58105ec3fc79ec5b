"""Layout and sizes, read from variable names and shapes.

Two layouts go by the name "ALBERT zh", and their checkpoints look alike until
a shape differs: "(312,) vs (128,)". Names and shapes tell nearly everything;
only the number of layers, the number of heads and where LayerNorm stands
(`ln_type`) must come from the configuration.
"""

import re
from collections.abc import Mapping
from typing import Any

from albert_tf2.config import AlbertConfig
from albert_tf2.errors import UserError

Shapes = Mapping[str, tuple[int, ...]]

_GROUP = re.compile(
    r"bert/encoder/transformer/group_(\d{1,9})/inner_group_(\d{1,9})/"
)
_LAYER = re.compile(r"bert/encoder/layer_(\d{1,9})/")
# Config keys that say which layout a configuration file is for.
LAYOUT_KEYS = frozenset(("layout", "ln_type", "num_hidden_groups"))


def detect(shapes: Shapes, source: str) -> dict[str, Any]:
    """Returns the configuration fields that the variables determine.

    Args:
        shapes: Shapes by TensorFlow 1 name (see `names`).
        source: How error messages call the checkpoint.

    Raises:
        UserError: If this is no ALBERT, or a layout that has no reader.
    """
    layout = _layout(shapes, source)
    found: dict[str, Any] = {"layout": layout}
    for field, name, axis in (
        ("vocab_size", "bert/embeddings/word_embeddings", 0),
        ("embedding_size", "bert/embeddings/word_embeddings", 1),
        ("hidden_size", "bert/pooler/dense/kernel", 1),
        ("type_vocab_size", "bert/embeddings/token_type_embeddings", 0),
        ("max_position_embeddings", "bert/embeddings/position_embeddings", 0),
    ):
        if len(shapes.get(name, ())) == 2:
            found[field] = shapes[name][axis]
    for name, shape in shapes.items():
        if name.endswith("intermediate/dense/kernel"):
            if len(shape) == 3:
                raise UserError(
                    f"{source} is a google_fast model (`{name}` has the shape "
                    f"{tuple(shape)}), a variant without released weights "
                    "that this project does not read"
                )
            found["intermediate_size"] = shape[-1]
    if layout == "google":
        blocks = [_GROUP.match(name) for name in shapes]
        found["groups"] = sorted({int(m[1]) for m in blocks if m})
        found["inner_group_num"] = 1 + max(int(m[2]) for m in blocks if m)
    else:
        found["layers"] = sorted(
            {int(m[1]) for m in map(_LAYER.match, shapes) if m}
        )
    return found


def _layout(shapes: Shapes, source: str) -> str:
    if any(_GROUP.match(name) for name in shapes):
        return "google"
    if "bert/embeddings/word_embeddings_2" in shapes:
        return "brightmart"
    if any(_LAYER.match(name) for name in shapes):
        raise UserError(
            f"{source} is a BERT, not an ALBERT: it has a layer_0 and no "
            "`bert/embeddings/word_embeddings_2`"
        )
    some = ", ".join(f"`{name}`" for name in sorted(shapes)[:4]) or "nothing"
    raise UserError(
        f"{source} is no ALBERT checkpoint: neither brightmart's "
        "`bert/embeddings/word_embeddings_2` nor google's "
        f"`bert/encoder/transformer/group_0` is among its variables ({some})"
    )


def configuration(
    values: dict[str, Any], shapes: Shapes, source: str, config_source: str
) -> AlbertConfig:
    """Returns the configuration of a file, its layout from the variables.

    Google's early files have none of the keys that tell the layouts apart;
    then the variables decide.
    """
    detected = detect(shapes, source)
    if isinstance(values, dict) and not LAYOUT_KEYS & set(values):
        values = {**values, "layout": detected["layout"]}
    if "parameter_sharing" not in values and detected.get("layers"):
        values = {**values, "parameter_sharing": "none"}
    config = AlbertConfig.from_dict(values, source=config_source)
    check_config(shapes, config, source)
    return config


def check_config(shapes: Shapes, config: AlbertConfig, source: str) -> None:
    """Raises if the variables contradict the configuration."""
    detected = detect(shapes, source)
    layout = detected["layout"]
    if layout != config.layout:
        raise UserError(
            f"{source} has the {layout} layout, but its configuration "
            f"describes the {config.layout} layout: two layouts go by the "
            "name ALBERT zh; use the albert_config.json that came with the "
            "checkpoint"
        )
    differences = [
        f"`{field}` is {getattr(config, field)} in the configuration and "
        f"{detected[field]} in the checkpoint"
        for field in (
            "vocab_size",
            "embedding_size",
            "hidden_size",
            "intermediate_size",
            "max_position_embeddings",
            "type_vocab_size",
        )
        if field in detected and detected[field] != getattr(config, field)
    ]
    differences += _sharing_differences(detected, config)
    if differences:
        hint = _released_model(detected)
        raise UserError(
            f"{source}: {'; '.join(differences)}. Likely cause: the "
            f"configuration belongs to another model{hint}"
        )


def _sharing_differences(
    detected: dict[str, Any], config: AlbertConfig
) -> list[str]:
    """Compares which layers have weights of their own."""
    from albert_tf2.model.albert import used_groups

    own_layers = config.parameter_sharing != "all"
    layers = list(range(config.num_hidden_layers))
    if detected["layout"] == "google":
        if detected["inner_group_num"] != config.inner_group_num:
            return [
                f"`inner_group_num` is {config.inner_group_num} in the "
                f"configuration and {detected['inner_group_num']} in the "
                "checkpoint"
            ]
        expected = layers if own_layers else used_groups(config)
        if detected["groups"] != expected:
            return [
                f"the groups are {expected} by the configuration and "
                f"{detected['groups']} in the checkpoint"
            ]
        return []
    expected = layers if own_layers else []
    if detected["layers"] != expected:
        return [
            f"{len(expected)} layers have weights of their own by the "
            f"configuration (`parameter_sharing={config.parameter_sharing!r}`"
            f") and {len(detected['layers'])} in the checkpoint"
        ]
    return []


def _released_model(detected: dict[str, Any]) -> str:
    """Names the shipped configuration that has the checkpoint's sizes."""
    for size in ("tiny", "small", "base", "large", "xlarge", "xxlarge"):
        suffix = "_google" if detected["layout"] == "google" else ""
        name = f"albert_{size}_zh{suffix}"
        config = AlbertConfig.from_name(name)
        sizes = ("vocab_size", "hidden_size", "intermediate_size")
        if all(detected.get(s) == getattr(config, s) for s in sizes):
            return f"; the sizes are those of {name}"
    return ""
