"""One table: the TensorFlow 1 name of each of our variables.

Every other format is described by these names, the ones that all released
checkpoints carry:

    bert/embeddings/...                            both layouts
    bert/encoder/layer_shared/...                  brightmart
    bert/encoder/layer_3/...                       brightmart, not shared
    bert/encoder/transformer/group_0/inner_group_0/...             google
    bert/pooler/..., cls/predictions/..., cls/seq_relationship/...
"""

from typing import TYPE_CHECKING, Any

from albert_tf2.config import AlbertConfig

if TYPE_CHECKING:
    import tensorflow as tf

    from albert_tf2.model.albert import AlbertPretrainer

MLM_SCOPE = "cls/predictions/"
SOP_SCOPE = "cls/seq_relationship/"
HEAD_SCOPES = {"mlm": MLM_SCOPE, "sop": SOP_SCOPE}
# What fine-tuning programs put on top of the encoder. The LayerNorm is
# albert_zh's, for pre-LN models.
TASK_NAMES = frozenset(
    (
        "output_weights",
        "output_bias",
        "loss/LayerNorm/gamma",
        "loss/LayerNorm/beta",
        "cls/squad/output_weights",
        "cls/squad/output_bias",
    )
)
# Where our own fine-tuned models keep theirs (see `finetuning.model`).
TASK_PATHS = {
    "output_weights": "head/output_weights",
    "output_bias": "head/output_bias",
    "loss/LayerNorm/gamma": "head/layer_norm/gamma",
    "loss/LayerNorm/beta": "head/layer_norm/beta",
}


def block_scopes(config: AlbertConfig) -> tuple[list[str], list[str]]:
    """Returns the scopes of the attention and of the feed-forward blocks."""
    from albert_tf2.model.albert import (
        used_groups,  # TensorFlow, only when needed
    )

    attention_shared = config.parameter_sharing in ("all", "attention")
    ffn_shared = config.parameter_sharing in ("all", "ffn")
    layers = range(config.num_hidden_layers)
    if config.layout == "brightmart":
        shared = ["bert/encoder/layer_shared/"]
        apart = [f"bert/encoder/layer_{i}/" for i in layers]
    else:
        scope = "bert/encoder/transformer/group_{}/inner_group_{}/"
        shared = [
            scope.format(group, inner)
            for group in used_groups(config)
            for inner in range(config.inner_group_num)
        ]
        apart = [scope.format(i, 0) for i in layers]
    return (
        shared if attention_shared else apart,
        shared if ffn_shared else apart,
    )


def attribute_paths(config: AlbertConfig) -> dict[str, str]:
    """Returns where in an `AlbertPretrainer` each variable lives.

    For instance "bert/pooler/dense/kernel" -> "encoder/pooler/kernel". Our
    own checkpoints and exports use these paths as keys.
    """
    brightmart = config.layout == "brightmart"
    embeddings = "bert/embeddings/"
    table = {
        f"{embeddings}{name}": f"encoder/embeddings/{name}"
        for name in (
            "word_embeddings",
            "token_type_embeddings",
            "position_embeddings",
        )
    }
    table |= _norm(f"{embeddings}LayerNorm", "encoder/embeddings/layer_norm")
    if brightmart:
        table[f"{embeddings}word_embeddings_2"] = (
            "encoder/embeddings/word_projection"
        )
    elif config.embedding_size != config.hidden_size:
        table |= _dense(
            "bert/encoder/embedding_hidden_mapping_in",
            "encoder/embedding_hidden_mapping_in",
        )
    attention_scopes, ffn_scopes = block_scopes(config)
    for i, scope in enumerate(attention_scopes):
        path = f"encoder/attention_layers/{i}/"
        table |= _attention(scope, path, brightmart)
    for i, scope in enumerate(ffn_scopes):
        path = f"encoder/feed_forward_layers/{i}/"
        table |= _feed_forward(scope, path, brightmart)
    table |= _dense("bert/pooler/dense", "encoder/pooler")

    transform = f"{MLM_SCOPE}transform/"
    table |= _dense(f"{transform}dense", "mlm_head/transform_dense")
    table |= _norm(f"{transform}LayerNorm", "mlm_head/transform_layer_norm")
    table[f"{MLM_SCOPE}output_bias"] = "mlm_head/output_bias"
    table[f"{SOP_SCOPE}output_weights"] = "sop_head/output_weights"
    table[f"{SOP_SCOPE}output_bias"] = "sop_head/output_bias"
    return table


def variables_by_name(model: "AlbertPretrainer") -> dict[str, "tf.Variable"]:
    """Returns all variables of a pretrainer under their TensorFlow 1 names."""
    return {
        name: _at(model, path)
        for name, path in attribute_paths(model.config).items()
    }


def tuned_variables_by_name(model: Any) -> dict[str, "tf.Variable"]:
    """Returns those of a fine-tuned model's encoder and head likewise."""
    places = {
        name: path
        for name, path in attribute_paths(model.encoder.config).items()
        if path.startswith("encoder/")
    }
    if model.head is not None:  # sentence vectors have none
        places |= TASK_PATHS
    if model.head is None or model.head.layer_norm is None:
        places = {k: v for k, v in places.items() if "head/layer_norm" not in v}
    return {name: _at(model, path) for name, path in places.items()}


def _at(owner: Any, path: str) -> Any:
    """Returns what lies at a path of attributes and indices."""
    for part in path.split("/"):
        owner = owner[int(part)] if part.isdigit() else getattr(owner, part)
    return owner


def _dense(name: str, path: str) -> dict[str, str]:
    return {f"{name}/{part}": f"{path}/{part}" for part in ("kernel", "bias")}


def _norm(name: str, path: str) -> dict[str, str]:
    return {f"{name}/{part}": f"{path}/{part}" for part in ("gamma", "beta")}


def _attention(scope: str, path: str, brightmart: bool) -> dict[str, str]:
    attention = scope + ("attention/" if brightmart else "attention_1/")
    norm = f"{attention}output/LayerNorm" if brightmart else f"{scope}LayerNorm"
    return {
        **_dense(f"{attention}self/query", f"{path}query"),
        **_dense(f"{attention}self/key", f"{path}key"),
        **_dense(f"{attention}self/value", f"{path}value"),
        **_dense(f"{attention}output/dense", f"{path}output_dense"),
        **_norm(norm, f"{path}layer_norm"),
    }


def _feed_forward(scope: str, path: str, brightmart: bool) -> dict[str, str]:
    inner = scope + ("" if brightmart else "ffn_1/") + "intermediate/"
    output = f"{scope}output/" if brightmart else f"{inner}output/"
    norm = f"{output}LayerNorm" if brightmart else f"{scope}LayerNorm_1"
    return {
        **_dense(f"{inner}dense", f"{path}intermediate_dense"),
        **_dense(f"{output}dense", f"{path}output_dense"),
        **_norm(norm, f"{path}layer_norm"),
    }
