"""TensorFlow 1 checkpoints: brightmart's (albert_zh) and Google's.

Names are brought to one spelling before anything is compared: optimizer slots
and counters are left out by their suffix, and Keras's `layer_normalization_3`
becomes the `LayerNorm` of the released checkpoints.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from albert_tf2 import paths
from albert_tf2.checkpoints import detection, names, task_head
from albert_tf2.checkpoints.bundle import Bundle
from albert_tf2.checkpoints.weights import Weights
from albert_tf2.config import AlbertConfig
from albert_tf2.errors import UserError
from albert_tf2.paths import PathLike
from albert_tf2.text.tokenization import Tokenizer

PREFIX = "albert_model.ckpt"
# google-research/albert's program for SQuAD names its head so.
_SQUAD = "cls/squad/"
KERAS_NORM = "layer_normalization"

# albert_zh: lamb_m, lamb_v; Google: adam_m, adam_v; TensorFlow's own: Adam,
# Adam_1 and so on.
_SLOT = re.compile(
    r"/(adam_[mv]|lamb_[mv]|Adam(_1)?|LAMB(Optimizer)?(_1)?|Momentum|"
    r"AdamWeightDecayOptimizer(_1)?|ExponentialMovingAverage)$"
)
_COUNTERS = frozenset(
    ("global_step", "beta1_power", "beta2_power", "good_steps", "loss_scale")
)
_NORM = re.compile(
    r"^(?P<scope>.*?)(?P<norm>LayerNorm|layer_normalization)(_(?P<n>\d{1,9}))?/"
    r"(?P<part>gamma|beta)$"
)
# Keras under TensorFlow 2 also renames the scopes of shared layers:
# group_0_2/layer_2/inner_group_0, layer_shared_3/output.
_COPIES = (
    (re.compile(r"(group_\d+)(?:_\d+)?/layer_\d+/(?=inner_group_)"), r"\1/"),
    (re.compile(r"layer_shared_\d+/"), "layer_shared/"),
)


def is_training_state(name: str) -> bool:
    """Whether a variable is an optimizer slot or a counter, not a weight."""
    return name in _COUNTERS or _SLOT.search(name) is not None


def canonical_names(found: Iterable[str]) -> dict[str, list[str]]:
    """Returns for each weight's one spelling the names that stand for it.

    There is more than one name only where a program gave every layer its own
    LayerNorm by mistake (google-research/albert issue 241).

        bert/embeddings/layer_normalization/gamma
            -> bert/embeddings/LayerNorm/gamma
        .../inner_group_0/layer_normalization_2/gamma, the second of two there
            -> .../inner_group_0/LayerNorm_1/gamma
    """
    result: dict[str, list[str]] = {}
    norms: dict[str, set[int]] = {}
    weights = [name for name in found if not is_training_state(name)]
    for name in weights:
        match = _NORM.match(name)
        if match and match["norm"] == KERAS_NORM:
            numbers = norms.setdefault(match["scope"], set())
            numbers.add(int(match["n"] or 0))
    for name in weights:
        match = _NORM.match(name)
        if match is None or match["norm"] != KERAS_NORM:
            result.setdefault(name, []).append(name)
            continue
        # Keras numbers its layers through the whole program: only the order
        # within a scope means something.
        order = sorted(norms[match["scope"]])
        position = order.index(int(match["n"] or 0))
        suffix = f"_{position}" if position else ""
        scope = match["scope"]
        for pattern, shared in _COPIES:
            scope = pattern.sub(shared, scope)
        canonical = f"{scope}LayerNorm{suffix}/{match['part']}"
        result.setdefault(canonical, []).append(name)
    return result


def read(
    prefix: PathLike, config: dict | AlbertConfig, config_source: str
) -> Weights:
    """Reads a TensorFlow 1 checkpoint.

    Args:
        prefix: The checkpoint's path without `.index`.
        config: An `albert_config.json`'s keys, or a configuration.
        config_source: How error messages call the configuration.
    """
    bundle = Bundle(prefix)
    source = str(bundle.prefix)
    canonical = canonical_names(bundle.entries)
    shapes = {
        name: bundle.entries[spellings[0]].shape
        for name, spellings in canonical.items()
    }
    task_names = _task_names(shapes)
    shapes = {n: s for n, s in shapes.items() if n not in task_names}
    if isinstance(config, AlbertConfig):
        detection.check_config(shapes, config, source)
    else:
        config = detection.configuration(config, shapes, source, config_source)
    arrays = {
        name: _value(bundle, name, spellings)
        for name, spellings in canonical.items()
    }
    return Weights(
        config=config,
        arrays={n: a for n, a in arrays.items() if n not in task_names},
        task_arrays={n.removeprefix(_SQUAD): arrays[n] for n in task_names},
        task_kind=(
            "span"
            if any(n.startswith(_SQUAD) for n in task_names)
            else "classification"
        ),
        kind="tf1",
        source=bundle.prefix,
        files=tuple(bundle.files),
        dropped=sum(map(is_training_state, bundle.entries)),
        variable_map={
            spelling: name
            for name, spellings in canonical.items()
            for spelling in spellings
            if spelling != name
        },
    )


def _task_names(shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    return sorted(names.TASK_NAMES & set(shapes))


def _value(bundle: Bundle, name: str, spellings: list[str]) -> np.ndarray:
    """Reads one weight as float32; copies of it must be equal."""
    kinds = ("float32", "float16", "bfloat16", "float64")
    dtype = bundle.entries[spellings[0]].dtype
    if dtype not in kinds:
        raise UserError(
            f"{bundle.prefix}: `{spellings[0]}` is of type {dtype}, not a "
            "weight: is this a quantized or another kind of file?"
        )
    value = np.asarray(bundle.read(spellings[0]), np.float32)
    for other in spellings[1:]:
        if not np.array_equal(value, bundle.read(other)):
            raise UserError(
                f"{bundle.prefix}: `{spellings[0]}` and `{other}` differ: "
                "this model has its own LayerNorm in every layer, which "
                "google-research/albert makes under TensorFlow 2 by mistake "
                "(its issue 241) and no ALBERT reader can express"
            )
    return value


def write(weights: Weights, folder: Path) -> dict[str, str]:
    """Writes `albert_model.ckpt`, its configuration and its vocabulary.

    Programs of TensorFlow 1, bert4keras and bert-for-tf2 read it.

    A fine-tuned model's head goes along, and what `task.json` says of it.

    Returns:
        Our names -> its variables' names.
    """
    import tensorflow as tf

    config = _expressible(weights.config)
    folder.mkdir(parents=True, exist_ok=True)
    prefix = folder / PREFIX
    task_head.write_task(weights, folder)
    task_head.write_labels(weights, folder)
    arrays = {**weights.arrays, **_original_task_names(weights)}
    ordered = sorted(arrays)
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=ordered,
        shape_and_slices=[""] * len(ordered),
        tensors=[tf.constant(arrays[name]) for name in ordered],
    )
    (folder / "checkpoint").write_text(
        f'model_checkpoint_path: "{PREFIX}"\n'
        f'all_model_checkpoint_paths: "{PREFIX}"\n',
        encoding="utf-8",
    )
    values = config.to_dict()
    del values["layout"]  # the historic programs know their own
    values.pop("parameter_sharing", None)  # the names say it
    paths.write_json(folder / "albert_config.json", values)
    if weights.vocab_file is not None:
        Tokenizer(weights.vocab_file, weights.text_settings).save(folder)
    own = {n: n.removeprefix(_SQUAD) for n in ordered}
    return {name: spelling for spelling, name in own.items()}


def _original_task_names(found: Weights) -> dict[str, np.ndarray]:
    """Returns the head as the original programs call it."""
    squad = found.task_kind == "span"
    return {
        f"{_SQUAD}{name}" if squad else name: array
        for name, array in found.task_arrays.items()
    }


def _expressible(config: AlbertConfig) -> AlbertConfig:
    """Returns a configuration that the historic programs understand."""
    if config.hidden_act == "gelu_erf":
        raise UserError(
            "a model with the exact gelu has no TensorFlow 1 form: the "
            "historic ALBERT programs know the tanh form alone"
        )
    if config.parameter_sharing == "all":
        return config
    if config.parameter_sharing == "none":
        if config.layout == "google":
            # Weights of one's own are a group of one's own.
            return config.replace(
                parameter_sharing="all",
                num_hidden_groups=config.num_hidden_layers,
            )
        return config
    raise UserError(
        "a model that shares only its "
        f"`{config.parameter_sharing}` has no TensorFlow 1 form: the "
        "historic programs share whole layers or nothing; convert --to tf2"
    )
