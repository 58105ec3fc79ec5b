r"""Exported encoders and preprocessors as layers of Keras 3.

Keras 3 is what `tf.keras` is from TensorFlow 2.16 on, and `hub.KerasLayer`
does not work with it. These two layers do, with any SavedModel that keeps
TF Hub's contract for text:

    import tensorflow as tf
    from albert_tf2.keras3 import Encoder, Preprocessor

    texts = tf.keras.Input([], dtype="string")
    inputs = Preprocessor("exported/preprocessor/1", seq_length=64)(texts)
    outputs = Encoder("exported/encoder/1")(inputs)
    scores = tf.keras.layers.Dense(2)(outputs["pooled_output"])
    model = tf.keras.Model(texts, scores)

Nothing else of this project runs on Keras 3 (see `keras_api`), and this module
needs nothing else of it.
"""

import inspect
import os
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from albert_tf2 import features
from albert_tf2.errors import UserError, check_choice
from albert_tf2.paths import saved_models

# Keras 2 inside TensorFlow has no `version`.
if not getattr(tf.keras, "version", lambda: "2")().startswith("3."):
    raise ImportError(
        f"albert_tf2.keras3 is made for Keras 3, and tf.keras is Keras 2 here "
        f"(TensorFlow {tf.__version__}): use hub.KerasLayer, or TensorFlow "
        "2.16 or later without TF_USE_LEGACY_KERAS"
    )
if keras.config.backend() != "tensorflow":
    raise ImportError(
        "albert_tf2.keras3 runs SavedModels, which Keras's backend "
        f"{keras.config.backend()!r} cannot: set KERAS_BACKEND=tensorflow"
    )

__all__ = ["Encoder", "Preprocessor"]


def _load(source: Any, layer: str) -> tuple[Any, str | None]:
    """Returns the loaded object and, if it was a folder, its path.

    Raises:
        UserError: If the path holds no SavedModel, or a damaged one.
    """
    if not isinstance(source, str | os.PathLike):
        return source, None
    path = os.fspath(source)
    if path.startswith(("https://", "http://")):
        raise UserError(
            f"{layer} takes a folder, not an address: download it first, for "
            f"instance with hub.resolve({path!r}), which returns the folder"
        )
    if not tf.saved_model.contains_saved_model(path):
        raise UserError(
            f"{path} holds no saved_model.pb: {layer} takes the folder that "
            "does. A .keras file names the folder from which its model was "
            "made: put it back there, or build the model from where the "
            "folder is now and call model.load_weights on that file"
        )
    return saved_models.load(path), path


class _SavedModelLayer(keras.layers.Layer):
    """What both layers share: where the SavedModel came from."""

    def __init__(self, source: Any, **kwargs: Any):
        super().__init__(**kwargs)
        self.resolved_object, self._path = _load(source, type(self).__name__)
        # Variables exist already, so that there is nothing to build.
        self.built = True

    def get_config(self) -> dict[str, Any]:
        """Returns what `from_config` needs: the folder, not its content.

        Raises:
            UserError: If the layer was made from a loaded object.
        """
        if self._path is None:
            raise UserError(
                f"the layer {self.name!r} was made from a loaded object, which "
                "no .keras file can name: make it from the SavedModel's "
                "folder, or save with model.export or model.save_weights"
            )
        return {**super().get_config(), "source": self._path}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "_SavedModelLayer":
        """Makes the layer again. Keras's own method would hide a UserError."""
        return cls(**config)


@keras.saving.register_keras_serializable("albert_tf2")
class Encoder(_SavedModelLayer):
    """A text encoder of TF Hub's contract, trained with what follows it.

    Call inputs: a dict of int32 [B, T]: `input_word_ids`, `input_mask`,
    `input_type_ids`. Call outputs: the SavedModel's dict, of which
    `pooled_output` [B, H] and `sequence_output` [B, T, H] are float32; or the
    one tensor that `output_key` names.

    The arithmetic is what was exported, whatever the dtype policy.

    Args:
        source: The SavedModel's folder, or the object that
            `tf.saved_model.load` or `hub.load` made of it.
        trainable: Whether its variables learn. False also means no dropout.
        output_key: The output to return alone, for `keras.Sequential`.
        **kwargs: Of `keras.layers.Layer`: `name`, `dtype`.

    Raises:
        UserError: If `source` is no such SavedModel.
    """

    def __init__(
        self,
        source: Any,
        trainable: bool = True,
        output_key: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(source, trainable=trainable, **kwargs)
        self.output_key = output_key
        loaded = self.resolved_object
        if not callable(loaded):
            raise UserError(
                f"{source} cannot be called: Encoder needs a SavedModel with a "
                "traced __call__, as TF Hub's encoders have (signatures alone "
                "cannot be trained)"
            )
        arguments = inspect.signature(loaded.__call__).parameters
        self._takes_training = "training" in arguments
        learned = _variables(loaded, "trainable_variables")
        learned_ids = {id(variable) for variable in learned}
        if trainable and not learned:
            raise UserError(
                f"{source} has no trainable variables, so that nothing of it "
                "can learn: pass trainable=False to use it as it is"
            )
        # Keras finds variables in lists among a layer's attributes.
        with keras.name_scope(self.name):
            self._learned = [_wrap(v, trainable=True) for v in learned]
            self._fixed = [
                _wrap(variable, trainable=False)
                for variable in _variables(loaded, "variables")
                if id(variable) not in learned_ids
            ]

    def call(
        self, inputs: Mapping[str, tf.Tensor], training: bool | None = None
    ) -> Any:
        """Runs the encoder; see the class."""
        given = sorted(inputs) if isinstance(inputs, Mapping) else [inputs]
        if given != sorted(features.ENCODER_INPUTS):
            raise UserError(
                "the encoder takes a dict of "
                f"{', '.join(features.ENCODER_INPUTS)}. Received: {given}"
            )
        inputs = {name: tf.cast(inputs[name], tf.int32) for name in given}
        options = {}
        if self._takes_training:
            options["training"] = bool(training) and self.trainable
        if self.trainable:
            for loss in getattr(
                self.resolved_object, "regularization_losses", ()
            ):
                self.add_loss(loss())
        outputs = self.resolved_object(inputs, **options)
        if self.output_key is None:
            return outputs
        check_choice("output_key", self.output_key, sorted(outputs))
        return outputs[self.output_key]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "output_key": self.output_key}


def _variables(loaded: Any, kind: str) -> list[tf.Variable]:
    """Returns the variables that a loaded object names, or else uses.

    TF Hub asks for attributes `variables` and `trainable_variables`. A plain
    `tf.Module` loses them when it is saved; its traces still know.
    """
    if hasattr(loaded, kind):
        return list(getattr(loaded, kind))
    traces = getattr(loaded.__call__, "concrete_functions", ())
    used = {id(v): v for trace in traces for v in getattr(trace, kind)}
    return list(used.values())


def _wrap(variable: tf.Variable, *, trainable: bool) -> Any:
    """Returns a Keras variable around a SavedModel's own, not a copy."""
    # An optimizer makes a scope of the name, which takes neither sign.
    name = variable.name.split(":")[0].replace("/", "_")
    wrapped = keras.Variable(
        variable, dtype=variable.dtype.name, trainable=trainable, name=name
    )
    # Were it a copy, training would move it and the encoder would stand still.
    if wrapped.value is not variable:
        raise ImportError(
            f"Keras {keras.__version__} copies the variables of a SavedModel, "
            "so that they cannot be trained: pip install --upgrade keras"
        )
    return wrapped


def _strings(texts: Any) -> Any:
    """Returns Python's texts as tensors: Keras lets nothing else through."""
    if isinstance(texts, str):
        return tf.constant([texts])
    if isinstance(texts, list | tuple):
        if all(isinstance(text, str) for text in texts):
            return tf.constant(texts, tf.string)  # one batch
        return [_strings(side) for side in texts]  # a pair
    return texts


@keras.saving.register_keras_serializable("albert_tf2")
class Preprocessor(_SavedModelLayer):
    """Texts to encoder inputs, by a preprocessor of TF Hub's contract.

    Call inputs: strings [B] or [B, 1]; for pairs, a list of two of them. Call
    outputs: int32 [B, T] `input_word_ids`, `input_mask`, `input_type_ids`.

    Args:
        source: The SavedModel's folder, or the object that was loaded from it.
        seq_length: T; pairs that are longer are trimmed to equal shares.
        **kwargs: Of `keras.layers.Layer`: `name`.

    Raises:
        UserError: If `source` is no such SavedModel.
    """

    def __init__(self, source: Any, seq_length: int = 128, **kwargs: Any):
        try:
            import tensorflow_text  # noqa: F401 (registers its operations)
        except ImportError as error:
            raise UserError(
                "Preprocessor needs the operations of tensorflow-text: pip "
                f"install 'tensorflow-text=={tf.__version__[:4]}.*'"
            ) from error
        kwargs["trainable"] = False
        super().__init__(source, **kwargs)
        self.seq_length = seq_length
        self.supports_jit = False  # XLA knows no strings.
        for part in ("tokenize", "bert_pack_inputs"):
            if not hasattr(self.resolved_object, part):
                raise UserError(
                    f"{source} has no `{part}`: Preprocessor needs a "
                    "preprocessor of TF Hub's contract"
                )

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(_strings(inputs), *args, **kwargs)

    def call(self, inputs: Any) -> dict[str, tf.Tensor]:
        """Tokenizes and packs; see the class."""
        sides = inputs if isinstance(inputs, Sequence) else [inputs]
        if len(sides) not in (1, 2):
            raise UserError(
                f"Preprocessor takes one text or a pair. Received: {len(sides)}"
            )
        segments = [
            self.resolved_object.tokenize(tf.reshape(side, [-1]))
            for side in sides
        ]
        packed = self.resolved_object.bert_pack_inputs(
            segments, tf.constant(self.seq_length)
        )
        # What a SavedModel returns has lost its length.
        return {
            name: tf.ensure_shape(value, [None, self.seq_length])
            for name, value in packed.items()
        }

    def get_config(self) -> dict[str, Any]:
        config = {**super().get_config(), "seq_length": self.seq_length}
        del config["trainable"]
        return config
