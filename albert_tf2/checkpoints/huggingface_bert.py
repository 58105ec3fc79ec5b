"""brightmart's post-LN models as Hugging Face BERTs.

brightmart post-LN *is* a BERT whose layers are equal and whose word table is
the product E1 @ E2. So the table is folded, the layer repeated, and any BERT
reader loads it; the masked-LM head stays tied, because (h E2^T) E1^T equals
h (E1 E2)^T. The file grows by what ALBERT saves: tiny from 17 MB to 46 MB.
There is no way back: the factors and the sharing are gone.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from albert_tf2.checkpoints import names
from albert_tf2.checkpoints.huggingface import (
    ACTIVATIONS,
    LAYER_NORM_EPSILON,
    write_folder,
)
from albert_tf2.checkpoints.weights import Weights
from albert_tf2.config import AlbertConfig
from albert_tf2.errors import UserError

_SAME_KEYS = (
    "vocab_size hidden_size num_hidden_layers num_attention_heads "
    "intermediate_size hidden_dropout_prob attention_probs_dropout_prob "
    "max_position_embeddings type_vocab_size initializer_range"
).split()
_BLOCK = {
    "attention/self/query": "attention.self.query",
    "attention/self/key": "attention.self.key",
    "attention/self/value": "attention.self.value",
    "attention/output/dense": "attention.output.dense",
    "attention/output/LayerNorm": "attention.output.LayerNorm",
    "intermediate/dense": "intermediate.dense",
    "output/dense": "output.dense",
    "output/LayerNorm": "output.LayerNorm",
}


def write(found: Weights, folder: Path) -> None:
    """Writes a `BertForPreTraining` folder with its BertTokenizer."""
    config = found.config
    _check_expressible(config)
    values = {key: getattr(config, key) for key in _SAME_KEYS}
    values |= {
        "model_type": "bert",
        "architectures": ["BertForPreTraining" if found.heads else "BertModel"],
        "hidden_act": ACTIVATIONS[config.hidden_act],
        "layer_norm_eps": LAYER_NORM_EPSILON,
    }
    write_folder(found, folder, bert_tensors(found), values)


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
    if config.hidden_act not in ACTIVATIONS:
        raise UserError(
            f"`hidden_act={config.hidden_act!r}` cannot be written: choices "
            f"are {', '.join(ACTIVATIONS)}"
        )


def bert_tensors(found: Weights) -> dict[str, np.ndarray]:
    """Returns the tensors of the equal BERT, under HF's names."""
    arrays = found.arrays
    embeddings = "bert/embeddings/"
    # In float64, so that the folded table is the nearest float32 to E1 @ E2.
    table = np.matmul(
        arrays[f"{embeddings}word_embeddings"].astype(np.float64),
        arrays[f"{embeddings}word_embeddings_2"].astype(np.float64),
    ).astype(np.float32)
    tensors = {
        "bert.embeddings.word_embeddings.weight": table,
        "bert.embeddings.token_type_embeddings.weight": arrays[
            f"{embeddings}token_type_embeddings"
        ],
        "bert.embeddings.position_embeddings.weight": arrays[
            f"{embeddings}position_embeddings"
        ],
        **_module(
            arrays, f"{embeddings}LayerNorm", "bert.embeddings.LayerNorm"
        ),
        **_module(arrays, "bert/pooler/dense", "bert.pooler.dense"),
    }
    attention, ffn = names.block_scopes(found.config)
    for layer in range(found.config.num_hidden_layers):
        for part, hf_part in _BLOCK.items():
            scopes = attention if part.startswith("attention") else ffn
            scope = scopes[layer if len(scopes) > 1 else 0]
            tensors |= _module(
                arrays,
                f"{scope}{part}",
                f"bert.encoder.layer.{layer}.{hf_part}",
            )
    if "mlm" in found.heads:
        transform = f"{names.MLM_SCOPE}transform/"
        hf_transform = "cls.predictions.transform."
        tensors |= _module(arrays, f"{transform}dense", f"{hf_transform}dense")
        tensors |= _module(
            arrays, f"{transform}LayerNorm", f"{hf_transform}LayerNorm"
        )
        tensors["cls.predictions.bias"] = arrays[
            f"{names.MLM_SCOPE}output_bias"
        ]
    if "sop" in found.heads:
        # BERT's next-sentence head: 0 means "B follows A" for both.
        for ours, theirs in (("weights", "weight"), ("bias", "bias")):
            tensors[f"cls.seq_relationship.{theirs}"] = arrays[
                f"{names.SOP_SCOPE}output_{ours}"
            ]
    return tensors


def _module(
    arrays: Mapping[str, np.ndarray], name: str, hf_name: str
) -> dict[str, np.ndarray]:
    """Returns the two tensors of a Dense or a LayerNorm."""
    if f"{name}/kernel" in arrays:
        weight = np.ascontiguousarray(arrays[f"{name}/kernel"].T)
        bias = arrays[f"{name}/bias"]
    else:
        weight, bias = arrays[f"{name}/gamma"], arrays[f"{name}/beta"]
    return {f"{hf_name}.weight": weight, f"{hf_name}.bias": bias}
