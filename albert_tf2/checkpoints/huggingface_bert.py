"""brightmart's post-LN models as Hugging Face BERTs.

brightmart post-LN *is* a BERT whose layers are equal and whose word table is
the product E1 @ E2. So the table is folded, the layer repeated, and any BERT
reader loads it; the masked-LM head stays tied, because (h E2^T) E1^T equals
h (E1 E2)^T. The file grows by what ALBERT saves: tiny from 17 MB to 46 MB.
There is no way back: the factors and the sharing are gone.
"""

from pathlib import Path

import numpy as np

from albert_tf2.checkpoints import huggingface_tasks, names
from albert_tf2.checkpoints.huggingface import (
    ACTIVATIONS,
    LAYER_NORM_EPSILON,
    turned,
)
from albert_tf2.checkpoints.huggingface_folder import write_folder
from albert_tf2.checkpoints.weights import Weights
from albert_tf2.config import AlbertConfig
from albert_tf2.errors import UserError

_SAME_KEYS = (
    "vocab_size hidden_size num_hidden_layers num_attention_heads "
    "intermediate_size hidden_dropout_prob attention_probs_dropout_prob "
    "max_position_embeddings type_vocab_size initializer_range"
).split()
_FACTORS = (
    "bert/embeddings/word_embeddings",
    "bert/embeddings/word_embeddings_2",
)
_TABLE = "bert.embeddings.word_embeddings.weight"


def write(found: Weights, folder: Path) -> dict[str, str | list[str]]:
    """Writes a BERT folder with its BertTokenizer.

    Returns:
        TensorFlow 1 name -> HF names.
    """
    config = found.config
    _check_expressible(config)
    values = {key: getattr(config, key) for key in _SAME_KEYS}
    values |= {
        "model_type": "bert",
        "architectures": [f"Bert{huggingface_tasks.architecture(found)}"],
        "hidden_act": ACTIVATIONS[config.hidden_act],
        "layer_norm_eps": LAYER_NORM_EPSILON,
    }
    table = name_table(config)
    table = {name: hf for name, hf in table.items() if name in found.arrays}
    table = huggingface_tasks.without_pooler(found, table)
    tensors = {_TABLE: _folded_table(found)}
    for name, hf_names in table.items():
        if name not in _FACTORS:
            tensors |= dict.fromkeys(hf_names, turned(name, found.arrays[name]))
    return {**table, **write_folder(found, folder, tensors, values)}


def _check_expressible(config: AlbertConfig) -> None:
    if config.layout != "brightmart":
        raise UserError(
            "a google model cannot be a BERT: it projects after the embedding "
            "LayerNorm; --to huggingface writes it as an Albert"
        )
    if config.ln_type != "postln":
        raise UserError(
            "a pre-LN brightmart model cannot be written for Hugging Face: "
            "neither their Albert nor their BERT puts LayerNorm before the "
            "sub-layers; --to tf2, tf1, hub and onnx can"
        )


def _folded_table(found: Weights) -> np.ndarray:
    first, second = (found.arrays[name] for name in _FACTORS)
    # In float64, so that each entry is the float32 nearest to E1 @ E2.
    product = first.astype(np.float64) @ second.astype(np.float64)
    return product.astype(np.float32)


def name_table(config: AlbertConfig) -> dict[str, list[str]]:
    """Returns TensorFlow 1 name -> names in a `BertForPreTraining`.

    The names are nearly the same, for both stem from the first BERT; a shared
    layer's variable has one name per layer.
    """
    attention_scopes, ffn_scopes = names.block_scopes(config)
    layers = range(config.num_hidden_layers)
    table = {}
    for name in names.attribute_paths(config):
        if name in _FACTORS:
            table[name] = [_TABLE]
        elif name.startswith("bert/encoder/"):
            part = name.split("/", 3)[-1]
            is_attention = part.startswith("attention")
            scopes = attention_scopes if is_attention else ffn_scopes
            table[name] = [
                f"bert.encoder.layer.{layer}.{_torch_name(part)}"
                for layer in layers
                if name.startswith(scopes[layer if len(scopes) > 1 else 0])
            ]
        else:
            table[name] = [_torch_name(name)]
    return table


def _torch_name(name: str) -> str:
    """Turns cls/predictions/transform/dense/kernel into torch's spelling."""
    scope, _, last = name.replace("/", ".").rpartition(".")
    kinds = {
        "kernel": "weight",
        "gamma": "weight",
        "beta": "bias",
        "output_weights": "weight",
        "output_bias": "bias",
        "token_type_embeddings": "token_type_embeddings.weight",
        "position_embeddings": "position_embeddings.weight",
    }
    return f"{scope}.{kinds.get(last, last)}"
