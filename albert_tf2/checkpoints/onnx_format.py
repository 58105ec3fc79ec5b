"""ONNX, through tf2onnx: every layout, any batch size and length.

The graph takes the model's own inputs, int32 [B, T] and [B, P], and returns
its outputs by name. tf2onnx was chosen over torch's exporter because it starts
from this project's model: pre-LN and the factorized embeddings stay as they
are, where a detour through Hugging Face would refuse or unfold them.
"""

import logging
from pathlib import Path

import numpy as np

from albert_tf2 import features
from albert_tf2.checkpoints import names
from albert_tf2.checkpoints.weights import Weights, to_model
from albert_tf2.errors import UserError, install_line

FILE_NAME = "model.onnx"
# The first with tf.nn's modern set that ONNX Runtime on phones has too.
OPSET = 17


def write(found: Weights, folder: Path) -> dict[str, str]:
    """Writes `model.onnx`; returns where the variables went."""
    import tensorflow as tf

    try:
        import tf2onnx
    except ImportError:
        raise UserError(
            f"writing ONNX needs tf2onnx: {install_line('onnx')}"
        ) from None
    model = to_model(found)
    wanted = [features.SEQUENCE_OUTPUT, features.POOLED_OUTPUT]
    wanted += [f"{head}_logits" for head in found.heads]
    inputs = list(features.ENCODER_INPUTS)
    if "mlm" in found.heads:
        inputs.append(features.MASKED_LM_POSITIONS)
    specs = [tf.TensorSpec([None, None], tf.int32, name) for name in inputs]

    @tf.function(input_signature=specs)
    def call(*tensors):
        outputs = model(dict(zip(inputs, tensors, strict=True)), training=False)
        return {name: outputs[name] for name in wanted}

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    folder.mkdir(parents=True, exist_ok=True)
    tf2onnx.convert.from_function(
        call,
        input_signature=specs,
        opset=OPSET,
        output_path=str(folder / FILE_NAME),
    )
    found.config.to_json(folder / "albert_config.json")
    # Constants of the graph carry no variable's name.
    return dict.fromkeys(
        (n for n in names.attribute_paths(found.config) if n in found.arrays),
        FILE_NAME,
    )


def run(folder: Path, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Runs a written model in ONNX Runtime."""
    try:
        import onnxruntime
    except ImportError:
        raise UserError(
            f"checking ONNX needs onnxruntime: {install_line('onnx')}"
        ) from None
    session = onnxruntime.InferenceSession(str(folder / FILE_NAME))
    taken = {one.name: inputs[one.name] for one in session.get_inputs()}
    produced = [one.name for one in session.get_outputs()]
    return dict(zip(produced, session.run(produced, taken), strict=True))
