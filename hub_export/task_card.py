"""The card of a fine-tuned model: its task, its labels, what was measured.

    cards/1/model.md, facts.json

Figures are those that `finetune` wrote into `task.json`; what was not measured
is said to be missing, never guessed. The head of the card is Hugging Face's.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

import albert_tf2
from albert_tf2 import paths
from albert_tf2.prediction.tuned_model import TunedModel
from albert_tf2.tasks import base
from albert_tf2.tasks.base import TASK_FILE

from .task_graphs import text_names
from .task_serving import GRAPHS

# What other people's sites call the kinds of task.
PIPELINE_TAGS = {
    base.CLASSIFICATION: "text-classification",
    base.MULTI_LABEL: "text-classification",
    base.REGRESSION: "text-classification",
    base.TAGGING: "token-classification",
    base.SPAN: "question-answering",
    base.CHOICE: "multiple-choice",
    base.VECTORS: "sentence-similarity",
}
# Of the serving model's signature, where a text or a pair is not all.
INPUTS = {
    base.TAGGING: ("text",),
    base.SPAN: ("question", "text"),
    base.CHOICE: ("text", "question", "choices"),
}
MOST_LABELS = 200


def gather(
    tuned: TunedModel, folder: str, export_dir: paths.PathLike, version: str
) -> dict[str, Any]:
    """Collects what is known of a model and of the parts beside its card.

    Args:
        tuned: The model.
        folder: Where it lies.
        export_dir: Holds the parts.
        version: Theirs.
    """
    described = paths.read_json(paths.join(folder, TASK_FILE), dict)
    _, method = GRAPHS[tuned.task.kind]
    parts = [
        part
        for part in ("encoder", "serving", "tflite", "onnx")
        if paths.is_dir(paths.join(export_dir, part, version))
    ]
    return {
        "task": tuned.describe(),
        "pairs": getattr(tuned.task, "pairs", None),
        "inputs": INPUTS.get(tuned.task.kind) or text_names(tuned.task),
        "signature": method,
        "figures": described.get("dev"),
        "step": described.get("step"),
        "parameters": sum(
            int(tf.size(variable)) for variable in tuned.model.variables
        ),
        "config": tuned.loaded.config.to_dict()
        if tuned.loaded.config is not None
        else None,
        "text_settings": dataclasses.asdict(tuned.loaded.tokenizer.settings),
        "parts": parts,
        "versions": {
            "albert_tf2": albert_tf2.__version__,
            "tensorflow": tf.__version__,
        },
    }


def card(name: str, facts: dict[str, Any]) -> str:
    """Returns the card, in Markdown."""
    return "\n".join(_lines(name, facts)) + "\n"


def _lines(name: str, facts: dict[str, Any]) -> Iterator[str]:
    task = facts["task"]
    yield "---\nlanguage: zh\nlibrary_name: tensorflow"
    yield f"pipeline_tag: {PIPELINE_TAGS[task['kind']]}"
    yield f"tags: [albert, {task['task']}]\n---\n"
    yield f"# albert_{name}\n"
    length = task["lengths"]["max_seq_length"]
    of_what = {True: " of pairs of texts", False: " of single texts"}
    yield (
        f"A Chinese ALBERT fine-tuned for {task['kind']}"
        f"{of_what.get(facts['pairs'], '')} (task `{task['task']}`): "
        f"{facts['parameters']:,} parameters, {length} tokens.\n"
    )
    yield "## Labels\n"
    yield from _labels(task)
    yield "\n## Use\n"
    if "serving" in facts["parts"]:
        given = ", ".join(f"{name}=..." for name in facts["inputs"])
        yield "```python\nimport tensorflow as tf, tensorflow_text\n"
        yield 'model = tf.saved_model.load("serving")'
        yield f'model.signatures["{facts["signature"]}"]({given})\n```\n'
    beside = ", ".join(facts["parts"]) or "none"
    yield f"Written beside this card: {beside}.\n"
    settings = facts["text_settings"]
    yield (
        f"Texts are {'' if settings['do_lower_case'] else 'not '}lower-cased "
        f"and signs are {'' if settings['normalize'] else 'not '}folded first; "
        "the exports that take strings do it themselves.\n"
    )
    yield "## Measured\n"
    if facts["figures"]:
        yield f"On the development set, at step {facts['step']}:\n"
        yield from (
            f"- {figure}: {value:.4f}"
            if isinstance(value, float)
            else f"- {figure}: {value}"
            for figure, value in facts["figures"].items()
        )
    else:
        yield "Not recorded."
    yield "\n## Limitations and licence\n"
    yield (
        "Trained text decides what the model knows and how it is biased. "
        "Apache-2.0; the weights keep the licence of their source.\n"
    )
    yield f"Written by albert_tf2 {facts['versions']['albert_tf2']}."


def _labels(task: dict[str, Any]) -> Iterator[str]:
    names = task.get("types") or task["labels"]
    if task["kind"] == base.VECTORS:
        yield (
            f"None: a vector of length 1 for each text (pooling "
            f"{task['pooling']}); products of two are cosines."
        )
    elif task["kind"] == base.REGRESSION:
        low_high = task.get("steps") or []
        yield "Scores" + (
            f" on the scale {low_high[0]} to {low_high[-1]}."
            if low_high
            else "."
        )
    elif not names:
        yield "None: answers are parts of the text, or choices."
    else:
        yield from (
            f"{number}. {label}"
            for number, label in enumerate(names[:MOST_LABELS])
        )
        if len(names) > MOST_LABELS:
            yield f"\n... and {len(names) - MOST_LABELS} more."


def export_task_card(
    tuned: TunedModel,
    folder: str,
    target: paths.PathLike,
    *,
    name: str,
    export_dir: paths.PathLike,
    version: int,
    overwrite: bool = False,
) -> None:
    """Writes the card and the facts that it was made of.

    Args:
        tuned: The model.
        folder: Where it lies.
        target: The new folder.
        name: The card speaks of `albert_<name>`.
        export_dir: Holds the parts.
        version: Theirs.
        overwrite: Replace an existing folder.
    """
    facts = gather(tuned, folder, export_dir, str(version))
    with paths.atomic_directory(target, overwrite=overwrite) as here:
        paths.write_json(here / "facts.json", facts)
        (here / "model.md").write_text(card(name, facts), encoding="utf-8")
