"""Fine-tuned heads as Hugging Face's classes, there and back.

    classification, multi_label, regression   ...ForSequenceClassification
    tagging                                   ...ForTokenClassification
    span                                      ...ForQuestionAnswering
    choice                                    ...ForMultipleChoice

Their classes that read every token have no pooler, and neither has
...ForMaskedLM. What they know of a task is `id2label` and `problem_type`.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from albert_tf2 import features
from albert_tf2.checkpoints import task_head
from albert_tf2.checkpoints.task_head import BIAS, WEIGHTS
from albert_tf2.checkpoints.weights import Weights
from albert_tf2.config import AlbertConfig
from albert_tf2.errors import UserError

Arrays = dict[str, np.ndarray]
# Class, its head's name, and the tasks' name here, by kind.
_SEQUENCE = ("ForSequenceClassification", "classifier")
CLASSES = {
    "classification": _SEQUENCE,
    "multi_label": _SEQUENCE,
    "regression": _SEQUENCE,
    "tagging": ("ForTokenClassification", "classifier"),
    "span": ("ForQuestionAnswering", "qa_outputs"),
    "choice": ("ForMultipleChoice", "classifier"),
}
_TASKS = {
    "classification": "classification",
    "multi_label": "multi_label",
    "regression": "regression",
    "tagging": "ner",
    "span": "qa",
    "choice": "c3",
}
PROBLEM_TYPES = {
    "single_label_classification": "classification",
    "multi_label_classification": "multi_label",
    "regression": "regression",
}
POOLER = tuple(f"bert/pooler/dense/{part}" for part in ("kernel", "bias"))
# Lengths of a task that another program trained, as far as they are a choice.
DEFAULT_LENGTH = 128


def architecture(found: Weights) -> str:
    """Returns what follows "Albert" or "Bert" in the class that fits.

    Raises:
        UserError: For a head that no class of theirs has.
    """
    if task_head.has_head(found):
        if task_head.has_layer_norm(found):
            raise UserError(
                f"the head of {found.source} begins with a LayerNorm, as "
                "pre-LN models need it, and no Hugging Face class has one: "
                "--to tf2, tf1 and onnx keep it"
            )
        return CLASSES[found.task_kind][0]
    if found.heads == ("mlm",):
        return "ForMaskedLM"
    return "ForPreTraining" if found.heads else "Model"


def has_pooler(found: Weights) -> bool:
    """Whether the class that fits has a pooler."""
    if task_head.has_head(found):
        return found.task_kind not in task_head.PER_TOKEN
    return found.heads != ("mlm",)


def head(found: Weights) -> tuple[dict[str, str], Arrays, dict[str, Any]]:
    """Returns a fine-tuned head as theirs.

    Returns:
        TensorFlow 1 name -> their name, their tensors, keys of config.json;
        empty without a head.
    """
    if not task_head.has_head(found):
        return {}, {}, {}
    _, name = CLASSES[found.task_kind]
    table = {WEIGHTS: f"{name}.weight", BIAS: f"{name}.bias"}
    tensors = {hf: found.task_arrays[ours] for ours, hf in table.items()}
    values: dict[str, Any] = {}
    for problem, kind in PROBLEM_TYPES.items():
        if kind == found.task_kind:
            values["problem_type"] = problem
    if found.task_kind not in ("span", "choice"):
        count = len(found.task_arrays[BIAS])
        labels = found.task_labels or [f"LABEL_{i}" for i in range(count)]
        values["id2label"] = {str(i): label for i, label in enumerate(labels)}
        values["label2id"] = {label: i for i, label in enumerate(labels)}
    return table, tensors, values


def take_head(
    tensors: Arrays, values: Mapping[str, Any], config: AlbertConfig
) -> dict[str, Any]:
    """Takes a head out of their tensors.

    Args:
        tensors: By their names; those of the head are removed.
        values: What config.json holds.
        config: The model's.

    Returns:
        Fields of `Weights`; none without a head.
    """
    kind = _kind(tensors, values)
    if kind is None:
        return {}
    _, name = CLASSES[kind]
    arrays = {
        WEIGHTS: tensors.pop(f"{name}.weight"),
        BIAS: tensors.pop(f"{name}.bias"),
    }
    id2label = values.get("id2label") or {}
    labels = [str(id2label[key]) for key in sorted(id2label, key=int)]
    if kind in ("span", "choice", "regression"):
        labels = []
    elif len(labels) != len(arrays[BIAS]):
        labels = [f"LABEL_{i}" for i in range(len(arrays[BIAS]))]
    task: dict[str, Any] = {
        "task": _TASKS[kind],
        "kind": kind,
        "lengths": {
            "max_seq_length": min(
                DEFAULT_LENGTH, config.max_position_embeddings
            )
        },
    }
    if kind == "tagging":
        types = sorted({label[2:] for label in labels if label[1:2] == "-"})
        bio = ["O", *(f"{p}-{name}" for name in types for p in "BI")]
        if sorted(bio) == sorted(labels):  # in another order
            order = [labels.index(label) for label in bio]
            arrays = {key: array[order] for key, array in arrays.items()}
            labels, task["types"] = bio, types
        else:
            task = {}
    if kind == "regression":
        task |= {"mean": 0.0, "spread": 1.0, "steps": []}
    if kind == "span":
        task["has_unanswerable"] = False  # nothing says that it may be so
    if task:
        task["labels"] = labels
    return {
        "task_arrays": arrays,
        "task_kind": kind,
        "task_labels": tuple(labels),
        "task": task,
    }


def _kind(tensors: Arrays, values: Mapping[str, Any]) -> str | None:
    """Returns the kind of task that tensors and config.json tell."""
    if "qa_outputs.weight" in tensors:
        return "span"
    if "classifier.weight" not in tensors:
        return None
    name = (values.get("architectures") or [""])[0]
    if name.endswith("ForTokenClassification"):
        return "tagging"
    if name.endswith("ForMultipleChoice"):
        return "choice"
    problem = values.get("problem_type")
    if problem is None and len(tensors["classifier.weight"]) == 1:
        return "regression"  # as their class decides it
    return PROBLEM_TYPES.get(problem or "", "classification")


def fill_pooler(arrays: Arrays, config: AlbertConfig, source: str) -> None:
    """Gives a model without a pooler one that answers 0, and says so."""
    if any(name in arrays for name in POOLER):
        return
    warnings.warn(
        f"{source} has no pooler, as classes that read every token have none: "
        "`pooled_output` will be 0",
        stacklevel=4,
    )
    width = config.hidden_size
    arrays[POOLER[0]] = np.zeros([width, width], np.float32)
    arrays[POOLER[1]] = np.zeros([width], np.float32)


def run(folder_name: str, model, inputs: Mapping[str, np.ndarray]) -> Arrays:
    """Runs one of their models on `certificate.fixed_inputs`.

    Args:
        folder_name: The class's name.
        model: The loaded model.
        inputs: The inputs.
    """
    import torch

    taken = {
        "input_ids": inputs[features.INPUT_WORD_IDS],
        "attention_mask": inputs[features.INPUT_MASK],
        "token_type_ids": inputs[features.INPUT_TYPE_IDS],
    }
    taken = {key: torch.tensor(value).long() for key, value in taken.items()}
    model.eval()
    with torch.no_grad():
        encoded = getattr(model, model.base_model_prefix, model)(**taken)
        if folder_name.endswith("ForMultipleChoice"):
            # Every row as a question with one choice: [B, 1, T].
            taken = {key: value[:, None] for key, value in taken.items()}
        outputs = model(**taken)
    found = {features.SEQUENCE_OUTPUT: encoded.last_hidden_state}
    if encoded.pooler_output is not None:
        found[features.POOLED_OUTPUT] = encoded.pooler_output
    rows = torch.arange(len(taken["input_ids"]))[:, None]
    positions = torch.tensor(inputs[features.MASKED_LM_POSITIONS]).long()
    if "prediction_logits" in outputs:
        found[features.MLM_LOGITS] = outputs.prediction_logits[rows, positions]
        # Albert says `sop_logits`, BERT `seq_relationship_logits`.
        found[features.SOP_LOGITS] = outputs[1]
    elif folder_name.endswith("ForMaskedLM"):
        found[features.MLM_LOGITS] = outputs.logits[rows, positions]
    elif "start_logits" in outputs:
        ends = (outputs.start_logits, outputs.end_logits)
        found[task_head.LOGITS] = torch.stack(ends, dim=-1)
    elif "logits" in outputs:
        found[task_head.LOGITS] = outputs.logits
    return {name: tensor.numpy() for name, tensor in found.items()}


def without_pooler(found: Weights, table: dict[str, Any]) -> dict[str, Any]:
    """Leaves the pooler out of a table of names where the class has none."""
    if has_pooler(found):
        return table
    return {
        name: theirs for name, theirs in table.items() if name not in POOLER
    }
