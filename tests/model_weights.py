"""A model's present values, as if they had been read from a checkpoint."""

from albert_tf2.checkpoints import names
from albert_tf2.checkpoints.weights import Weights
from albert_tf2.model.albert import AlbertPretrainer


def weights_of(model: AlbertPretrainer, **fields) -> Weights:
    """Returns the values under TensorFlow 1 names, with fields of `Weights`."""
    arrays = {
        name: variable.numpy()
        for name, variable in names.variables_by_name(model).items()
    }
    return Weights(model.config, arrays, **fields)
