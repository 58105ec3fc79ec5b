"""The one place that picks Keras 2.

`hub.KerasLayer`, Model Garden's layers and its LAMB all live on Keras 2, which
is `tf.keras` up to TensorFlow 2.15 and the package `tf_keras` from 2.16 on.
The rule is the one that tensorflow_hub applies itself, so objects made here
and there are of the same classes, without any environment variable.
"""

import tensorflow as tf

# Keras 2 inside TensorFlow has no `version`.
_version = getattr(tf.keras, "version", lambda: "2")
if _version().startswith("3."):
    try:
        import tf_keras as keras
    except ImportError as error:
        raise ImportError(
            f"TensorFlow {tf.__version__} brings Keras 3, on which neither "
            "hub.KerasLayer nor this project runs: pip install tf-keras"
        ) from error
else:
    keras = tf.keras

__all__ = ["keras"]
