"""ONNX, through tf2onnx: every layout, any batch size and length.

The graph takes the model's own inputs, int32 [B, T] and [B, P], and returns
its outputs by name; of a fine-tuned one `task_logits` too, or the `embedding`
of one for sentence vectors, with labels and `task.json` among the model's
properties. tf2onnx was chosen over torch's
exporter because it starts from this project's model: pre-LN and the factorized
embeddings stay as they are, where a detour through Hugging Face would refuse
or unfold them.
"""

import json
import logging
from pathlib import Path

import numpy as np

from albert_tf2 import features
from albert_tf2.checkpoints import names, task_head
from albert_tf2.checkpoints.weights import Weights, to_model
from albert_tf2.errors import UserError, install_line
from albert_tf2.text.tokenization import Tokenizer

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
    is_tuned = task_head.has_head(found)
    inputs = list(features.ENCODER_INPUTS)
    if "mlm" in found.heads:
        inputs.append(features.MASKED_LM_POSITIONS)
    specs = [tf.TensorSpec([None, None], tf.int32, name) for name in inputs]

    @tf.function(input_signature=specs, autograph=False)
    def call(*tensors):
        given = {name: tensors[i] for i, name in enumerate(inputs)}
        outputs = model(given, training=False)
        kept = {name: outputs[name] for name in wanted}
        if is_tuned:
            logits = task_head.logits(found, outputs)
            kept[task_head.LOGITS] = logits
            kept |= task_head.meaning(found, logits)
        if task_head.pooling_of(found):
            kept[task_head.EMBEDDING] = task_head.embedding(
                found, outputs, given[features.INPUT_MASK]
            )
        return kept

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    folder.mkdir(parents=True, exist_ok=True)
    tf2onnx.convert.from_function(
        call,
        input_signature=specs,
        opset=OPSET,
        output_path=str(folder / FILE_NAME),
    )
    found.config.to_json(folder / "albert_config.json")
    if is_tuned or task_head.pooling_of(found):
        _add_task(found, folder)
    # Constants of the graph carry no variable's name.
    table = [*names.attribute_paths(found.config), *names.TASK_PATHS]
    arrays = {**found.arrays, **found.task_arrays}
    return dict.fromkeys((name for name in table if name in arrays), FILE_NAME)


def _add_task(found: Weights, folder: Path) -> None:
    """Says inside the model and beside it what the head's numbers mean."""
    import onnx

    task_head.write_labels(found, folder)
    if found.vocab_file is not None:
        Tokenizer(found.vocab_file, found.text_settings).save(folder)
    path = str(folder / FILE_NAME)
    model = onnx.load(path)
    about = {
        "kind": found.task_kind,
        "labels": json.dumps(list(found.task_labels), ensure_ascii=False),
        "task": json.dumps(dict(found.task), ensure_ascii=False),
    }
    onnx.helper.set_model_props(model, about)
    onnx.save(model, path)


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
    outputs = dict(zip(produced, session.run(produced, taken), strict=True))
    # What follows from the logits is not compared again.
    for name in task_head.MEANINGS:
        outputs.pop(name, None)
    return outputs
