"""The README.md of a Hugging Face folder: what it is, and how to use it."""

from typing import Any

from albert_tf2 import __version__
from albert_tf2.checkpoints import sentence_transformers
from albert_tf2.checkpoints.weights import Weights

# What transformers calls the job of a class, by the end of the class's name.
PIPELINES = {
    "ForPreTraining": "fill-mask",
    "ForMaskedLM": "fill-mask",
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForMultipleChoice": "multiple-choice",
    "Model": "feature-extraction",
}
MOST_LABELS = 50


def card(found: Weights, class_name: str) -> str:
    """Returns the card as Markdown, with the head that the hub reads.

    The licence is left to who publishes: it depends on the text that the
    model was trained on.

    Args:
        found: The model.
        class_name: Of transformers, for instance "AlbertForPreTraining".
    """
    library, job = "transformers", PIPELINES[_kind_of(class_name)]
    if sentence_transformers.fits(found):
        library, job = "sentence-transformers", "sentence-similarity"
    config = found.config
    parameters = sum(array.size for array in found.arrays.values())
    lines = [
        "---",
        "language: zh",
        f"library_name: {library}",
        f"pipeline_tag: {job}",
        "tags: [albert, chinese, albert_tf2]",
        "---",
        "",
        "# Chinese ALBERT",
        "",
        f"{parameters:,} parameters: {config.num_hidden_layers} layers of "
        f"{config.hidden_size}, {config.num_attention_heads} heads, "
        f"{config.vocab_size:,} tokens. Class `{class_name}`; the tokenizer is "
        "`BertTokenizer` (WordPiece on single characters).",
        "",
        "```python",
        *_usage(library, job, class_name),
        "```",
        "",
        *_labels(found),
        "Written by `python -m albert_tf2.convert --to huggingface` of "
        f"albert_tf2 {__version__}. `conversion.json` holds the hashes of the "
        "source and the largest difference between its outputs and these.",
        "",
    ]
    return "\n".join(lines)


def _kind_of(class_name: str) -> str:
    return class_name.removeprefix("Albert").removeprefix("Bert")


def _usage(library: str, job: str, class_name: str) -> list[str]:
    place = '"OWNER/NAME"  # or this folder'
    if library == "sentence-transformers":
        return [
            "from sentence_transformers import SentenceTransformer",
            "",
            f"name = {place}",
            'vectors = SentenceTransformer(name).encode(["今天天气很好"])',
        ]
    if job != "multiple-choice":
        return [
            "from transformers import pipeline",
            "",
            f"name = {place}",
            f'model = pipeline("{job}", name)',
        ]
    # transformers has no pipeline for choices.
    return [
        f"from transformers import AutoTokenizer, {class_name}",
        "",
        f"name = {place}",
        "tokenizer = AutoTokenizer.from_pretrained(name)",
        f"model = {class_name}.from_pretrained(name)",
    ]


def _labels(found: Weights) -> list[str]:
    """Names the task that the model was tuned for, and its answers."""
    if not found.task_arrays:
        return []
    task: Any = found.task.get("task", "a task of another program")
    names = [f"`{label}`" for label in found.task_labels[:MOST_LABELS]]
    more = len(found.task_labels) - len(names)
    told = ", ".join(names) + (f" and {more} more" if more else "")
    sentence = f"Fine-tuned for {task} ({found.task_kind})."
    return [sentence + (f" Labels: {told}." if names else ""), ""]
