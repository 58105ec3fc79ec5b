"""What the library sentence-transformers needs beside a Hugging Face folder.

    modules.json                     the encoder, its pooling, length 1
    sentence_bert_config.json        where texts are cut
    1_Pooling/config.json            the mean of the tokens, or [CLS]

With these `SentenceTransformer("folder").encode(texts)` gives the vectors of a
model for sentence vectors. It has no pooler: a model that takes the pooler's
output is an encoder there, and no more.
"""

from pathlib import Path

from albert_tf2 import paths
from albert_tf2.checkpoints import task_head
from albert_tf2.checkpoints.weights import Weights

_MODES = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token"}
_TYPES = (
    ("", "Transformer"),
    ("1_Pooling", "Pooling"),
    ("2_Normalize", "Normalize"),
)


def fits(found: Weights) -> bool:
    """Whether a model is one for vectors that the library can make."""
    return task_head.pooling_of(found) in _MODES


def write(found: Weights, folder: Path) -> None:
    """Writes the files, if the model is one that `fits`."""
    if not fits(found):
        return
    pooling = task_head.pooling_of(found)
    modules = [
        {
            "idx": number,
            "name": str(number),
            "path": path,
            "type": f"sentence_transformers.models.{name}",
        }
        for number, (path, name) in enumerate(_TYPES)
    ]
    paths.write_json(folder / "modules.json", modules)
    lengths = found.task.get("lengths", {})
    paths.write_json(
        folder / "sentence_bert_config.json",
        {
            "max_seq_length": lengths.get(
                "max_seq_length", found.config.max_position_embeddings
            ),
            "do_lower_case": False,  # the tokenizer does what is to be done
        },
    )
    for path, _ in _TYPES[1:]:
        (folder / path).mkdir()
    paths.write_json(
        folder / "1_Pooling" / "config.json",
        {
            "word_embedding_dimension": found.config.hidden_size,
            **{name: mode == pooling for mode, name in _MODES.items()},
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
        },
    )
