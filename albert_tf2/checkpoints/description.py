"""What a checkpoint is, in a few lines for people."""

from pathlib import Path

from albert_tf2 import paths
from albert_tf2.checkpoints import names, task_head
from albert_tf2.checkpoints.weights import Weights
from albert_tf2.text.tokenization import Vocabulary

MOST_LABELS = 20
KINDS = {
    "tf1": "TensorFlow 1 checkpoint",
    "tf2": "TensorFlow 2 checkpoint of this project",
    "huggingface": "Hugging Face folder",
    "hub": "hub export (SavedModel)",
}


def describe(found: Weights) -> str:
    """Returns layout, sizes, parameters, heads, vocabulary and hashes."""
    config = found.config
    rows = [
        ("source", str(found.source)),
        ("kind", KINDS[found.kind]),
        ("layout", f"{config.layout}, {config.ln_type}"),
        ("sharing", _sharing(found)),
        (
            "sizes",
            f"vocabulary {config.vocab_size}, embedding "
            f"{config.embedding_size}, hidden {config.hidden_size}, "
            f"{config.num_hidden_layers} layers, "
            f"{config.num_attention_heads} heads, intermediate "
            f"{config.intermediate_size}, {config.max_position_embeddings} "
            f"positions, {config.type_vocab_size} token types",
        ),
        ("activation", config.hidden_act),
        ("parameters", _parameters(found)),
        ("heads", ", ".join(found.heads) or "none"),
        *(
            ("task head", f"{name} {array.shape}")
            for name, array in found.task_arrays.items()
        ),
        *_task(found),
        ("left out", f"{found.dropped} optimizer slots, counters and so on"),
        ("vocabulary", _vocabulary(found)),
        *(("file", _file(path)) for path in found.files),
    ]
    return "\n".join(f"{key:<12}{value}" for key, value in rows)


def _task(found: Weights) -> list[tuple[str, str]]:
    """Says what a fine-tuned head is for."""
    pooling = task_head.pooling_of(found)
    if pooling:
        return [("task", f"{found.task_kind}, pooling {pooling}")]
    if not found.task_arrays:
        return []
    name = found.task.get("task", "of another program")
    labels = found.task_labels[:MOST_LABELS]
    more = len(found.task_labels) - len(labels)
    shown = ", ".join(labels) + (f" and {more} more" if more else "")
    return [("task", f"{found.task_kind}, {name}"), ("labels", shown or "none")]


def _sharing(found: Weights) -> str:
    config = found.config
    if config.parameter_sharing != "all":
        return {
            "none": "none: every layer has its own weights",
            "attention": "the layers share their attention alone",
            "ffn": "the layers share their feed-forward alone",
        }[config.parameter_sharing]
    groups = config.num_hidden_groups * config.inner_group_num
    if groups == 1:
        return "all layers share one set of weights"
    return (
        f"{config.num_hidden_groups} groups of {config.inner_group_num} "
        "inner layers"
    )


def _parameters(found: Weights) -> str:
    def count(scope: str) -> int:
        return sum(
            array.size
            for name, array in found.arrays.items()
            if name.startswith(scope)
        )

    total = sum(array.size for array in found.arrays.values())
    parts = [f"encoder {count('bert/'):,}"]
    parts += [
        f"{head} {count(names.HEAD_SCOPES[head]):,}" for head in found.heads
    ]
    return f"{total:,} ({', '.join(parts)})"


def _vocabulary(found: Weights) -> str:
    if found.vocab_file is None:
        return "none beside it"
    size = len(Vocabulary.load(found.vocab_file))
    if size == found.config.vocab_size:
        fits = "fits"
    else:
        fits = f"DOES NOT FIT: the model has {found.config.vocab_size}"
    return f"{size} tokens, {fits}; {_file(found.vocab_file)}"


def _file(path: Path) -> str:
    size = f"{path.stat().st_size:,} bytes"
    return f"{path.name}, {size}, sha256 {paths.sha256(path)}"
