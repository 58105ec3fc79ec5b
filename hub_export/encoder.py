"""The encoder as a SavedModel: what `hub.KerasLayer` loads and fine-tunes.

    encoder = hub.KerasLayer("albert_zh/1", trainable=True)
    outputs = encoder(preprocessor(texts))       # a dict, see below
    outputs["pooled_output"]                     # float32 [B, H]

    albert = hub.load("albert_zh/1")
    albert.mlm(dict(inputs, masked_lm_positions=positions))["mlm_logits"]
    albert.sop(inputs)["sop_logits"]             # 1 = swapped

The root is made by hand and not a saved Keras model: a Keras save fixes the
traced length and loses what `hub.KerasLayer` asks for.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from albert_tf2 import features, paths
from albert_tf2.checkpoints import names
from albert_tf2.checkpoints.native import CONFIG_FILE
from albert_tf2.model import pooling
from albert_tf2.model.albert import AlbertPretrainer
from albert_tf2.paths import saved_models
from albert_tf2.tasks.base import TASK_FILE
from albert_tf2.text.tokenization import Tokenizer

from .preprocessor import add_text_assets

HEADS = ("mlm", "sop")

MLM_INPUTS = (*features.ENCODER_INPUTS, features.MASKED_LM_POSITIONS)
# A signature returns tensors only; `encoder_outputs` is a list.
SIGNATURE_OUTPUTS = (
    features.DEFAULT,
    features.POOLED_OUTPUT,
    features.SEQUENCE_OUTPUT,
)


def input_specs(
    input_names: Sequence[str], length: int | None = None
) -> dict[str, tf.TensorSpec]:
    """Returns int32 specs [B, T] by input name ([B, P] for positions)."""
    return {
        name: tf.TensorSpec([None, length], tf.int32, name)
        for name in input_names
    }


def traced(
    function: Callable, input_names: Sequence[str]
) -> tf.types.experimental.GenericFunction:
    """Returns `function(inputs, training)` traced with and without dropout."""

    @tf.function(autograph=False)
    def call(inputs, training=False):
        return function(inputs, training)

    for training in (False, True):
        call.get_concrete_function(input_specs(input_names), training=training)
    return call


def with_dropout(
    pretrainer: AlbertPretrainer, dropout: float
) -> AlbertPretrainer:
    """Returns the same weights in a model with other dropout rates."""
    config = dataclasses.replace(
        pretrainer.config,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    copy = AlbertPretrainer(config)
    sources = names.variables_by_name(pretrainer)
    for name, variable in names.variables_by_name(copy).items():
        variable.assign(sources[name])
    return copy


class _Callable(tf.__internal__.tracking.AutoTrackable):
    """A trackable object with a traced `__call__` and its variables.

    Other than `tf.Module` this class lets `variables` be a list of our
    choice, and other than `tf.train.Checkpoint` it adds no counter to them.
    `hub.KerasLayer` trains `trainable_variables`.
    """

    def __init__(self, call, variables: Sequence[tf.Variable]):
        super().__init__()
        self.__call__ = call
        self.variables = list(variables)
        self.trainable_variables = [v for v in variables if v.trainable]
        self.regularization_losses: list[tf.Tensor] = []


def _weight_tree(pretrainer: AlbertPretrainer, heads: Sequence[str]):
    """Returns the variables under their attribute paths.

    So that `load_pretrained` reads an export back. Plain objects: the Keras
    model itself would bring its own traces along.
    """
    new_node = tf.__internal__.tracking.AutoTrackable
    root = new_node()
    variables = names.variables_by_name(pretrainer)
    for name, path in names.attribute_paths(pretrainer.config).items():
        owner, *parts = path.split("/")
        if owner != "encoder" and owner.removesuffix("_head") not in heads:
            continue
        node = root
        for part in [owner, *parts][:-1]:
            if not hasattr(node, part):
                setattr(node, part, new_node())
            node = getattr(node, part)
        setattr(node, parts[-1], variables[name])
    return root


def build_encoder(
    pretrainer: AlbertPretrainer,
    tokenizer: Tokenizer,
    staging: str,
    *,
    heads: Sequence[str] = HEADS,
    task: dict[str, Any] | None = None,
) -> tf.__internal__.tracking.AutoTrackable:
    """Returns the SavedModel's root.

    Args:
        pretrainer: The model; its variables are shared, not copied.
        tokenizer: What the preprocessor does.
        staging: An empty folder, for the assets.
        heads: The heads to publish, of "mlm" and "sop".
        task: What `task.json` says of a model for sentence vectors.
    """
    encoder = pretrainer.encoder

    def vectors(inputs, training):
        assert task is not None, "only then it is traced"
        outputs = dict(encoder(inputs, training=training))
        vector = pooling.sentence_vector(
            outputs, inputs[features.INPUT_MASK], task["pooling"]
        )
        return outputs | {
            features.POOLED_OUTPUT: vector,
            features.DEFAULT: vector,
        }

    encode = traced(
        encoder if task is None else vectors, features.ENCODER_INPUTS
    )

    def mlm(inputs, training):
        inputs = dict(inputs)
        positions = inputs.pop(features.MASKED_LM_POSITIONS)
        outputs = dict(encode(inputs, training))
        masked = tf.gather(
            outputs[features.SEQUENCE_OUTPUT], positions, batch_dims=1
        )
        outputs[features.MLM_LOGITS] = pretrainer.mlm_head(
            masked, embeddings=encoder.embeddings
        )
        return outputs

    def sop(inputs, training):
        outputs = dict(encode(inputs, training))
        outputs[features.SOP_LOGITS] = pretrainer.sop_head(
            outputs[features.POOLED_OUTPUT]
        )
        return outputs

    root = _Callable(encode, encoder.variables)
    if "mlm" in heads:
        root.mlm = _Callable(
            traced(mlm, MLM_INPUTS),
            [*encoder.variables, *pretrainer.mlm_head.variables],
        )
    if "sop" in heads:
        root.sop = _Callable(
            traced(sop, features.ENCODER_INPUTS),
            [*encoder.variables, *pretrainer.sop_head.variables],
        )
    root.pretrainer = _weight_tree(pretrainer, heads)
    add_text_assets(root, tokenizer, staging)
    config_file = f"{staging}/{CONFIG_FILE}"
    pretrainer.config.to_json(config_file)
    root.config_file = tf.saved_model.Asset(config_file)
    if task is not None:
        task_file = f"{staging}/{TASK_FILE}"
        paths.write_json(task_file, task)
        root.task_file = tf.saved_model.Asset(task_file)
    # Of TF Hub's API, for programs that know no `text_settings_file`.
    root.do_lower_case = tf.Variable(
        tokenizer.settings.do_lower_case, trainable=False
    )
    return root


def serving_signature(encode: Callable) -> tf.types.experimental.Callable:
    """Returns the signature on ids: named int32 inputs, a dict of tensors."""

    @tf.function(
        input_signature=[input_specs(features.ENCODER_INPUTS)], autograph=False
    )
    def serve(inputs):
        outputs = encode(inputs, training=False)
        return {name: outputs[name] for name in SIGNATURE_OUTPUTS}

    return serve


def export_encoder(
    pretrainer: AlbertPretrainer,
    tokenizer: Tokenizer,
    export_dir: paths.PathLike,
    *,
    heads: Sequence[str] = HEADS,
    dropout: float | None = None,
    task: dict[str, Any] | None = None,
    overwrite: bool = False,
) -> paths.PathLike:
    """Writes the encoder SavedModel and returns its folder.

    Args:
        pretrainer: The trained model.
        tokenizer: Its own, of exactly `config.vocab_size` tokens.
        export_dir: The new folder.
        heads: The heads to publish: those that were trained.
        dropout: The rate for fine-tuning; None keeps the configuration's
            (0 in the released Chinese models).
        task: What `task.json` says of a model for sentence vectors: its
            vector, of length 1, becomes the `pooled_output`.
        overwrite: Replace an existing folder.

    Raises:
        UserError: If the vocabulary is of another size or the folder exists.
    """
    tokenizer.vocabulary.check_size(pretrainer.config.vocab_size)
    if dropout is not None:
        pretrainer = with_dropout(pretrainer, dropout)
    with paths.atomic_directory(export_dir, overwrite=overwrite) as folder:
        with paths.temporary_folder("export") as staging:
            root = build_encoder(
                pretrainer, tokenizer, staging, heads=heads, task=task
            )
            saved_models.save(
                root,
                folder,
                signatures=serving_signature(root.__call__),
            )
    return export_dir
