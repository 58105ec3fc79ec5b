"""A checkpoint in memory: arrays under TensorFlow 1 names, and its config.

Each reader returns `Weights`, each writer takes them. Between the two stands
one strict rule: every variable of the model gets a value of its own shape, and
every value finds its variable. Nothing is half loaded.
"""

import dataclasses
import difflib
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from albert_tf2 import paths
from albert_tf2.checkpoints import detection, names
from albert_tf2.config import AlbertConfig
from albert_tf2.errors import UserError
from albert_tf2.model.albert import AlbertPretrainer
from albert_tf2.text import vocabulary_change
from albert_tf2.text.text_settings import TextSettings
from albert_tf2.text.tokenization import Tokenizer, Vocabulary

MAX_NAMES_IN_MESSAGE = 6


@dataclasses.dataclass(frozen=True)
class Weights:
    """What a checkpoint holds.

    Attributes:
        config: The model that the arrays belong to.
        arrays: float32 values by TensorFlow 1 name: the encoder and, whole
            or not at all, each pre-training head.
        task_arrays: A fine-tuned model's own head, if it has one.
        task_kind: What that head does; "classification" where nothing says.
        task_labels: Its classes, where they are known.
        task: All that is known of it: what a `task.json` holds.
        kind: "tf1", "tf2", "huggingface" or "hub".
        source: The folder or checkpoint prefix they were read from.
        files: The files they were read from.
        vocab_file: The vocabulary beside them, if there is one.
        text_settings: How its texts become tokens, where that is written.
        dropped: How many optimizer slots and counters were left out.
        variable_map: Name in the source -> TensorFlow 1 name, where the two
            differ.
    """

    config: AlbertConfig
    arrays: Mapping[str, np.ndarray]
    task_arrays: Mapping[str, np.ndarray] = dataclasses.field(
        default_factory=dict
    )
    task_kind: str = "classification"
    task_labels: tuple[str, ...] = ()
    task: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    kind: str = "tf1"
    source: Path | str | None = None
    files: tuple[Path, ...] = ()
    vocab_file: Path | None = None
    text_settings: TextSettings | None = None
    dropped: int = 0
    variable_map: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def heads(self) -> tuple[str, ...]:
        """The pre-training heads that are there: "mlm", "sop"."""
        return present_heads(self.arrays)


def present_heads(found: Iterable[str]) -> tuple[str, ...]:
    """Returns which pre-training heads some variable names belong to."""
    found = list(found)
    return tuple(
        head
        for head, scope in names.HEAD_SCOPES.items()
        if any(
            name.startswith(scope) and name not in names.TASK_NAMES
            for name in found
        )
    )


def to_model(weights: Weights) -> AlbertPretrainer:
    """Builds the model and fills every variable, or raises.

    A head that the checkpoint lacks whole (a fine-tuned or encoder-only
    checkpoint) keeps its random start, which a warning says.
    """
    check_config(weights)
    model = AlbertPretrainer(weights.config)
    fill(model, weights)
    model.vocab_file = weights.vocab_file
    model.text_settings = weights.text_settings
    model.loaded_heads = weights.heads
    return model


def check_config(weights: Weights) -> None:
    """Raises unless the arrays are as large as the configuration says."""
    detection.check_config(
        _shapes(weights), weights.config, str(weights.source)
    )


def fill(model: AlbertPretrainer, weights: Weights) -> None:
    """Gives every variable of a model its value, or raises (see `to_model`)."""
    source = str(weights.source)
    table = names.variables_by_name(model)
    expected = {
        name: tuple(variable.shape)
        for name, variable in table.items()
        if _head_of(name) is None or _head_of(name) in weights.heads
    }
    check_match(expected, _shapes(weights), source)
    for name in expected:
        table[name].assign(weights.arrays[name])
    absent = sorted(set(names.HEAD_SCOPES) - set(weights.heads))
    if absent:
        warnings.warn(
            f"{source} has no {' and no '.join(absent)} head: the encoder is "
            "loaded, the pre-training outputs are those of an untrained head",
            stacklevel=4,
        )


def fill_tuned(model: Any, weights: Weights) -> None:
    """Gives a fine-tuned model its encoder and head, or raises.

    Args:
        model: A `finetuning.model.TaskModel` around an `AlbertEncoder`.
        weights: Of `native.read`.
    """
    table = names.tuned_variables_by_name(model)
    arrays = {**weights.arrays, **weights.task_arrays}
    check_match(
        {name: tuple(variable.shape) for name, variable in table.items()},
        {name: array.shape for name, array in arrays.items()},
        str(weights.source),
    )
    for name, variable in table.items():
        variable.assign(arrays[name])


def _shapes(weights: Weights) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in weights.arrays.items()}


def tokenizer_of(
    loaded: Weights | AlbertPretrainer,
    source: str,
    vocab_file: paths.PathLike | None = None,
) -> Tokenizer:
    """Returns the tokenizer that a model was trained with.

    Args:
        loaded: What `read_weights` or `load_pretrained` returned.
        source: Where from, for the message.
        vocab_file: The vocabulary, where none lies beside the weights.

    Raises:
        UserError: If there is none, or it is not the model's.
    """
    vocab_file = vocab_file or loaded.vocab_file
    if vocab_file is None:
        raise UserError(
            f"{source} has no vocab.txt beside it: name one with --vocab_file"
        )
    if loaded.vocab_file is not None:
        vocabulary_change.refuse_other(
            Vocabulary.load(loaded.vocab_file),
            Vocabulary.load(vocab_file),
            where_before=source,
            where_now=str(vocab_file),
        )
    return Tokenizer(vocab_file, loaded.text_settings)


def _head_of(name: str) -> str | None:
    for head, scope in names.HEAD_SCOPES.items():
        if name.startswith(scope):
            return head
    return None


def check_match(
    expected: Mapping[str, tuple[int, ...]],
    found: Mapping[str, tuple[int, ...]],
    source: str,
) -> None:
    """Raises unless both sides have the same names and shapes.

    Args:
        expected: What the model needs.
        found: What the checkpoint holds.
        source: How the message calls the checkpoint.

    Raises:
        UserError: With the names, both shapes and the likely cause.
    """
    missing = sorted(set(expected) - set(found))
    unused = sorted(set(found) - set(expected))
    shaped = [
        f"`{name}` is {found[name]}, the model needs {shape}"
        for name, shape in sorted(expected.items())
        if name in found and tuple(found[name]) != tuple(shape)
    ]
    if not (missing or unused or shaped):
        return
    parts = []
    if shaped:
        parts.append(f"mis-shaped: {listed(shaped)}")
    if missing:
        shapes = [f"`{name}` {expected[name]}" for name in missing]
        parts.append(f"missing: {listed(shapes)}")
    if unused:
        shapes = [f"`{name}` {found[name]}" for name in unused]
        parts.append(f"not used by the model: {listed(shapes)}")
    cause = _likely_cause(missing, unused, bool(shaped))
    raise UserError(f"{source} does not fit: {'; '.join(parts)}. {cause}")


def listed(entries: list[str]) -> str:
    """Joins the first few entries and counts the rest."""
    rest = len(entries) - MAX_NAMES_IN_MESSAGE
    text = ", ".join(entries[:MAX_NAMES_IN_MESSAGE])
    return f"{text} and {rest} more" if rest > 0 else text


def _likely_cause(missing: list[str], unused: list[str], shaped: bool) -> str:
    if missing and unused:
        near = difflib.get_close_matches(missing[0], unused, n=1, cutoff=0.9)
        if near:
            return (
                f"Likely cause: another program spells `{missing[0]}` as "
                f"`{near[0]}`: rename it"
            )
    if unused and not missing:
        return (
            "Likely cause: a fine-tuned model of another task: remove those "
            "variables, or load it with the program that made it"
        )
    if missing:
        return (
            "Likely cause: a part of a model was saved, or the file was cut: "
            "save the whole model"
        )
    if shaped:
        return "Likely cause: the configuration belongs to another model"
    return ""
