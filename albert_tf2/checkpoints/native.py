"""Our own checkpoints: TensorFlow 2's, keyed by place in the model.

Two forms are read alike:

    workdir/                 written by training
      albert_config.json  vocab.txt  checkpoints/ckpt-1000.{index,data-*}
    folder/                  written by `save_pretrained`, without slots
      albert_config.json  vocab.txt  model.{index,data-*}

and so are the SavedModels that `albert_tf2.hub_export` writes. All of them
hold a graph of the saved objects, in which the model is looked up: what else
was saved beside it (optimizer, counters, other signatures) does not matter.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from albert_tf2 import paths
from albert_tf2.checkpoints import names, task_head, weights
from albert_tf2.checkpoints.bundle import OBJECT_GRAPH, Bundle
from albert_tf2.checkpoints.weights import Weights
from albert_tf2.config import AlbertConfig
from albert_tf2.errors import UserError
from albert_tf2.model.albert import AlbertPretrainer
from albert_tf2.text.tokenization import Tokenizer

CONFIG_FILE = "albert_config.json"
PREFIX = "model"
VARIABLE_VALUE = "VARIABLE_VALUE"
# What belongs to a model; a compiled one also holds its optimizer.
_PARTS = {
    "pretrainer": ("encoder", "mlm_head", "sop_head", "head"),
    "encoder": (
        "embeddings",
        "embedding_hidden_mapping_in",
        "attention_layers",
        "feed_forward_layers",
        "pooler",
    ),
}
_LANDMARK = "embeddings/word_embeddings"


def save_pretrained(
    model: AlbertPretrainer,
    folder: paths.PathLike,
    *,
    vocab_file: paths.PathLike | None = None,
    overwrite: bool = False,
) -> paths.PathLike:
    """Writes a folder that `load_pretrained` reads: no optimizer slots.

    Args:
        model: The model.
        folder: Where to; created whole or not at all.
        vocab_file: The vocabulary to put beside it, with its text settings;
            by default the one that the model was loaded with.
        overwrite: Replace an existing folder.

    Returns:
        The folder, as it was given.

    Raises:
        UserError: If the folder exists and `overwrite` is False, if it cannot
            be written, or if the vocabulary is not the model's.
    """
    with paths.atomic_directory(folder, overwrite=overwrite) as temporary:
        _write_model(model, temporary)
        vocab_file = vocab_file or getattr(model, "vocab_file", None)
        if vocab_file is not None:
            settings = getattr(model, "text_settings", None)
            Tokenizer(vocab_file, settings).save(temporary)
    return folder


def write(found: Weights, folder: Path) -> dict[str, str]:
    """Writes into a folder; returns TensorFlow 1 name -> our key.

    A head that the source lacks is left out here, too. That of a fine-tuned
    model goes along, with its `task.json`: `Predictor` reads the result.
    """
    folder.mkdir(parents=True, exist_ok=True)
    task_head.write_task(found, folder)
    _write_model(
        weights.to_model(found), folder, found.heads, found.task_arrays
    )
    if found.vocab_file is not None:
        Tokenizer(found.vocab_file, found.text_settings).save(folder)
    places = names.attribute_paths(found.config) | names.TASK_PATHS
    return {
        name: path
        for name, path in places.items()
        if name in found.arrays or name in found.task_arrays
    }


def _write_model(
    model: AlbertPretrainer,
    folder: Path,
    heads: Sequence[str] = tuple(names.HEAD_SCOPES),
    task_arrays: Mapping[str, np.ndarray] | None = None,
) -> None:
    import tensorflow as tf

    # The parts, not the model: a compiled one would bring its optimizer.
    kept = ["encoder", *(f"{head}_head" for head in heads)]
    parts = {part: getattr(model, part) for part in kept}
    if task_arrays:
        parts["head"] = _task_head(task_arrays)
    tf.train.Checkpoint(model=tf.train.Checkpoint(**parts)).write(
        str(folder / PREFIX)
    )
    model.config.to_json(folder / CONFIG_FILE)


def _task_head(arrays: Mapping[str, np.ndarray]):
    """Returns objects that save as a `finetuning.model.TaskHead` does."""
    import tensorflow as tf

    head = tf.train.Checkpoint()
    for name, path in names.TASK_PATHS.items():
        if name in arrays:
            _, *between, last = path.split("/")
            node = head
            for part in between:
                if not hasattr(node, part):
                    setattr(node, part, tf.train.Checkpoint())
                node = getattr(node, part)
            setattr(node, last, tf.Variable(arrays[name], name=last))
    return head


def read(prefix: paths.PathLike, config: AlbertConfig) -> Weights:
    """Reads a checkpoint of TensorFlow 2, ours or inside a SavedModel."""
    bundle = Bundle(prefix)
    graph = _ObjectGraph(bundle)
    node, within = graph.find_model()
    places = names.attribute_paths(config) | names.TASK_PATHS
    keys = {}
    for name, path in places.items():
        if within == "encoder":
            path = path.removeprefix("encoder/")
        key = graph.variable_key(node, path)
        if key is not None:
            keys[key] = name
    arrays = {
        name: np.asarray(bundle.read(key), np.float32)
        for key, name in keys.items()
    }
    task_arrays = {
        name: arrays.pop(name) for name in names.TASK_PATHS if name in arrays
    }
    held = graph.variable_keys(node, _PARTS[within])
    unused = sorted(held - set(keys))
    if unused:
        raise UserError(
            f"{bundle.prefix} does not fit: {weights.listed(unused)} have no "
            "place in the model that its configuration describes. Likely "
            "cause: the configuration belongs to another model"
        )
    return Weights(
        config=config,
        arrays=arrays,
        task_arrays=task_arrays,
        kind="tf2",
        source=bundle.prefix,
        files=tuple(bundle.files),
        dropped=len(bundle.entries) - 1 - len(keys),
        variable_map=keys,
    )


class _ObjectGraph:
    """The graph of saved objects inside a checkpoint."""

    def __init__(self, bundle: Bundle):
        from google.protobuf.message import DecodeError
        from tensorflow.core.protobuf import trackable_object_graph_pb2

        self._source = bundle.prefix
        try:
            graph = trackable_object_graph_pb2.TrackableObjectGraph.FromString(
                bundle.read(OBJECT_GRAPH)
            )
        except (DecodeError, TypeError) as error:
            raise UserError(
                f"{bundle.prefix}: its object graph is damaged: fetch or copy "
                "it again"
            ) from error
        count = len(graph.nodes)
        self._children = [
            {
                child.local_name: child.node_id
                for child in node.children
                if 0 <= child.node_id < count
            }
            for node in graph.nodes
        ]
        self._keys = [
            [
                attribute.checkpoint_key
                for attribute in node.attributes
                if attribute.name == VARIABLE_VALUE
                and attribute.checkpoint_key in bundle.entries
            ]
            for node in graph.nodes
        ]

    def _node(self, start: int, path: str) -> int | None:
        node: int | None = start
        for part in path.split("/"):
            node = None if node is None else self._children[node].get(part)
        return node

    def variable_key(self, start: int, path: str) -> str | None:
        """Returns the checkpoint's key of the variable at `path`."""
        node = self._node(start, path)
        return self._keys[node][0] if node and self._keys[node] else None

    def variable_keys(self, start: int, parts: tuple[str, ...]) -> set[str]:
        """Returns the keys of all variables under some parts of a node."""
        children = self._children[start]
        seen, keys = set(), set()
        stack = [children[part] for part in parts if part in children]
        while stack:
            node = stack.pop()
            if node not in seen:
                seen.add(node)
                keys.update(self._keys[node])
                stack.extend(self._children[node].values())
        return keys

    def find_model(self) -> tuple[int, str]:
        """Returns the node of the pretrainer, else of the encoder.

        Returns:
            The node, and "pretrainer" or "encoder".
        """
        nodes = range(len(self._children))
        for within, landmark in (
            ("pretrainer", f"encoder/{_LANDMARK}"),
            ("encoder", _LANDMARK),
        ):
            for node in nodes:
                if self.variable_key(node, landmark):
                    return node, within
        raise UserError(
            f"{self._source} holds no ALBERT of this project: was it written "
            "by another program?"
        )
