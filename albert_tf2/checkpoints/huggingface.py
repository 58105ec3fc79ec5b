"""Hugging Face's Albert: the google layout under other names.

The arithmetic is the same (tanh gelu is their `gelu_new`, LayerNorm's epsilon
1e-12); kernels are transposed, because torch's Linear stores [out, in].
brightmart's layout cannot be an HF Albert: its position and type embeddings
have the hidden size. Its post-LN models can be a BERT: see `huggingface_bert`.
"""

import re
from pathlib import Path

import numpy as np

from albert_tf2 import paths
from albert_tf2.checkpoints import huggingface_tasks, names, task_head, weights
from albert_tf2.checkpoints.huggingface_folder import (
    read_tensors,
    read_text_settings,
    shards,
    write_folder,
)
from albert_tf2.checkpoints.locate import Location
from albert_tf2.checkpoints.weights import Weights
from albert_tf2.config import AlbertConfig
from albert_tf2.errors import UserError, check_choice

LAYER_NORM_EPSILON = 1e-12
# Ours on the left; their "gelu" is the exact one, through erf.
ACTIVATIONS = {
    "gelu": "gelu_new",
    "gelu_new": "gelu_new",
    "gelu_erf": "gelu",
    "relu": "relu",
}
_SAME_KEYS = (
    "vocab_size embedding_size hidden_size num_hidden_layers "
    "num_attention_heads intermediate_size hidden_dropout_prob "
    "attention_probs_dropout_prob max_position_embeddings type_vocab_size "
    "initializer_range num_hidden_groups inner_group_num"
).split()
_MAPPING = "albert.encoder.embedding_hidden_mapping_in"
# TensorFlow 1's scopes and theirs, for what has a kernel or a gamma.
_MODULES = {
    "bert/embeddings/LayerNorm": "albert.embeddings.LayerNorm",
    "bert/encoder/embedding_hidden_mapping_in": _MAPPING,
    "bert/pooler/dense": "albert.pooler",
    "cls/predictions/transform/dense": "predictions.dense",
    "cls/predictions/transform/LayerNorm": "predictions.LayerNorm",
}
_GROUP = re.compile(
    r"bert/encoder/transformer/group_(?P<group>\d+)/"
    r"inner_group_(?P<inner>\d+)/(?P<module>.+)"
)
_BLOCK = {
    "attention_1/self/query": "attention.query",
    "attention_1/self/key": "attention.key",
    "attention_1/self/value": "attention.value",
    "attention_1/output/dense": "attention.dense",
    "LayerNorm": "attention.LayerNorm",
    "LayerNorm_1": "full_layer_layer_norm",
    "ffn_1/intermediate/dense": "ffn",
    "ffn_1/intermediate/output/dense": "ffn_output",
}
_VARIABLES = {
    **{
        f"bert/embeddings/{table}": f"albert.embeddings.{table}.weight"
        for table in (
            "word_embeddings",
            "token_type_embeddings",
            "position_embeddings",
        )
    },
    "cls/predictions/output_bias": "predictions.bias",
    "cls/seq_relationship/output_weights": "sop_classifier.classifier.weight",
    "cls/seq_relationship/output_bias": "sop_classifier.classifier.bias",
}


def name_table(config: AlbertConfig) -> dict[str, str]:
    """Returns TensorFlow 1 name -> HF name, for `AlbertForPreTraining`."""
    return {name: _hf_name(name) for name in names.attribute_paths(config)}


def _hf_name(name: str) -> str:
    if name in _VARIABLES:
        return _VARIABLES[name]
    scope, _, part = name.rpartition("/")
    kind = "bias" if part in ("bias", "beta") else "weight"
    block = _GROUP.fullmatch(scope)
    if block is None:
        return f"{_MODULES[scope]}.{kind}"
    return (
        f"albert.encoder.albert_layer_groups.{block['group']}.albert_layers."
        f"{block['inner']}.{_BLOCK[block['module']]}.{kind}"
    )


def turned(name: str, array: np.ndarray) -> np.ndarray:
    """Transposes kernels; their own inverse."""
    if name.endswith("/kernel"):
        array = array.T
    return np.ascontiguousarray(array)


def read(location: Location, config: AlbertConfig | None) -> Weights:
    """Reads a folder that `save_pretrained` of transformers wrote."""
    source = str(location.folder)
    if config is None:
        config = read_config(location)
    tensors = read_tensors(location.weights)
    # A bare AlbertModel has no "albert." in front.
    if not any(name.startswith("albert.") for name in tensors):
        tensors = {f"albert.{name}": array for name, array in tensors.items()}
    tensors.pop("albert.embeddings.position_ids", None)
    _drop_tied(tensors, source)
    _drop_identity(tensors, config, source)
    config_file = location.folder / "config.json"
    values = paths.read_json(config_file) if config_file.is_file() else {}
    task = huggingface_tasks.take_head(tensors, values, config)
    table = name_table(config)
    arrays, used = {}, {}
    for name, hf_name in table.items():
        if hf_name in tensors:
            arrays[name] = turned(name, tensors.pop(hf_name))
            used[hf_name] = name
    if tensors:
        raise UserError(
            f"{source} does not fit: {weights.listed(sorted(tensors))} have "
            "no place in an ALBERT of its config.json. Likely cause: another "
            "architecture, or a head of another task"
        )
    huggingface_tasks.fill_pooler(arrays, config, source)
    return Weights(
        config=config,
        arrays=arrays,
        **task,
        text_settings=read_text_settings(location.folder),
        kind="huggingface",
        source=location.folder,
        files=tuple(shards(location.weights)),
        variable_map=used,
    )


def read_config(location: Location) -> AlbertConfig:
    """Reads HF's config.json, or says why it cannot be one of ours."""
    path = location.folder / "config.json"
    if not path.is_file():
        raise UserError(
            f"{location.weights} has no config.json beside it: put the one "
            "that was saved with it there, or name a configuration of this "
            "project (--config, or `config=`)"
        )
    values = paths.read_json(path)
    model_type = values.get("model_type", "albert")
    if model_type != "albert":
        raise UserError(
            f"{path}: `model_type` is {model_type!r}: only `albert` folders "
            "are read"
            + (
                "; a BERT that was made from a brightmart model has lost the "
                "factorization: load the model it was made from"
                if model_type == "bert"
                else ""
            )
        )
    epsilon = values.get("layer_norm_eps", LAYER_NORM_EPSILON)
    if epsilon != LAYER_NORM_EPSILON:
        raise UserError(
            f"{path}: `layer_norm_eps` is {epsilon}: ALBERT's is 1e-12, and "
            "another one gives other outputs"
        )
    act = values.get("hidden_act", "gelu_new")
    ours = {"gelu_new": "gelu", "relu": "relu", "gelu": "gelu_erf"}
    check_choice("hidden_act", act, ours, source=str(path))
    # Their defaults where a file leaves a key out.
    kept = {"embedding_size": 128, "vocab_size": 30000}
    kept |= {key: values[key] for key in _SAME_KEYS if key in values}
    return AlbertConfig.from_dict(
        {**kept, "hidden_act": ours[act], "layout": "google"}, source=str(path)
    )


def _drop_tied(tensors: dict[str, np.ndarray], source: str) -> None:
    """Drops the decoder's copies of the embeddings, if copies they are."""
    for copy, original in (
        (
            "predictions.decoder.weight",
            "albert.embeddings.word_embeddings.weight",
        ),
        ("predictions.decoder.bias", "predictions.bias"),
    ):
        if copy not in tensors:
            continue
        tied = tensors.pop(copy)
        if original not in tensors or not np.array_equal(
            tied, tensors[original]
        ):
            raise UserError(
                f"{source}: `{copy}` differs from `{original}`: ALBERT ties "
                "the two, this model does not"
            )


def _drop_identity(
    tensors: dict[str, np.ndarray], config: AlbertConfig, source: str
) -> None:
    """With E == H the google layout has no projection; HF always has one."""
    if config.embedding_size != config.hidden_size:
        return
    weight = tensors.pop(f"{_MAPPING}.weight", None)
    bias = tensors.pop(f"{_MAPPING}.bias", None)
    if weight is None or bias is None:
        return
    if not np.array_equal(weight, np.eye(len(weight))) or np.any(bias):
        raise UserError(
            f"{source}: embedding and hidden size are equal and the "
            f"projection between them (`{_MAPPING}.weight`) is not the "
            "identity: the google layout has no place for it"
        )


def write(found: Weights, folder: Path) -> dict[str, str]:
    """Writes an Albert folder with a BertTokenizer.

    Returns:
        TensorFlow 1 name -> HF name.
    """
    config = expressible(found.config)
    folder.mkdir(parents=True, exist_ok=True)
    # The places are the same under both configurations, the names need not be.
    table = dict(
        zip(
            names.attribute_paths(found.config),
            name_table(config).values(),
            strict=True,
        )
    )
    table = {name: hf for name, hf in table.items() if name in found.arrays}
    table = huggingface_tasks.without_pooler(found, table)
    if found.task:  # else their config.json says all that is known
        task_head.write_task(found, folder)
    tensors = {
        hf_name: turned(name, found.arrays[name])
        for name, hf_name in table.items()
    }
    if config.embedding_size == config.hidden_size:
        tensors[f"{_MAPPING}.weight"] = np.eye(
            config.hidden_size, dtype=np.float32
        )
        tensors[f"{_MAPPING}.bias"] = np.zeros(config.hidden_size, np.float32)
    values = {key: getattr(config, key) for key in _SAME_KEYS}
    values |= {
        "model_type": "albert",
        "architectures": [f"Albert{huggingface_tasks.architecture(found)}"],
        "hidden_act": ACTIVATIONS[config.hidden_act],
        "layer_norm_eps": LAYER_NORM_EPSILON,
        "classifier_dropout_prob": 0.1,
    }
    return table | write_folder(found, folder, tensors, values)


def expressible(config: AlbertConfig) -> AlbertConfig:
    """Returns the configuration as HF would have it, or says why not."""
    if config.layout == "brightmart":
        cause = (
            "and pre-LN has no BERT form either"
            if config.ln_type == "preln"
            else "but --to huggingface-bert writes it as a BERT"
        )
        raise UserError(
            "a brightmart model cannot be a Hugging Face Albert: its position "
            f"and type embeddings have the hidden size, {cause}"
        )
    layers = config.num_hidden_layers
    if config.parameter_sharing == "none":
        return config.replace(parameter_sharing="all", num_hidden_groups=layers)
    if config.num_hidden_groups > layers:
        # Theirs would make the groups that no layer uses, too.
        return config.replace(num_hidden_groups=layers)
    if config.parameter_sharing != "all":
        raise UserError(
            f"a model that shares only its `{config.parameter_sharing}` "
            "cannot be a Hugging Face Albert, which shares whole layers"
        )
    return config
