"""A Hugging Face folder: tensors, config.json, tokenizer, and running it."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from albert_tf2 import paths
from albert_tf2.checkpoints import (
    huggingface_card,
    huggingface_tasks,
    sentence_transformers,
    weights,
)
from albert_tf2.checkpoints.locate import INDEX_ENDING, SAFETENSORS
from albert_tf2.checkpoints.weights import Weights
from albert_tf2.errors import UserError, install_line
from albert_tf2.text.text_settings import TextSettings
from albert_tf2.text.tokenization import Tokenizer, Vocabulary

Arrays = dict[str, np.ndarray]
# Written beside the model so that AutoTokenizer makes a BertTokenizer: these
# models have a WordPiece vocabulary, not Albert's SentencePiece.
TOKENIZER_FILE = "tokenizer_config.json"
TOKENIZER_CONFIG = {
    "tokenizer_class": "BertTokenizer",
    "do_basic_tokenize": True,
    "strip_accents": None,
    "tokenize_chinese_chars": True,
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}


def _not_installed(what: str, error: ImportError) -> UserError:
    return UserError(
        f"{what} needs {error.name}: {install_line('huggingface')}"
    )


def shards(path: Path) -> list[Path]:
    """Returns the files that a weights file is, or that an index names."""
    if not path.name.endswith(INDEX_ENDING):
        return [path]
    table = paths.read_json(path, dict).get("weight_map")
    if not isinstance(table, dict) or not table:
        raise UserError(f"{path}: `weight_map` is missing: fetch it again")
    found = sorted({str(name) for name in table.values()})
    for name in found:
        # Another's file must not name one outside its folder.
        if Path(name).name != name or not path.with_name(name).is_file():
            raise UserError(
                f"{path} names {name}, which is not beside it: fetch all parts"
            )
    return [path.with_name(name) for name in found]


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """Reads .safetensors, whole or in parts, or a .bin or .pt.

    Nothing that is pickled in one of the latter is run.
    """
    parts = shards(path)
    if parts == [path]:
        return _read_part(path)
    found: dict[str, np.ndarray] = {}
    for part in parts:
        found |= _read_part(part)
    return found


def _read_part(path: Path) -> dict[str, np.ndarray]:
    # Their readers would wait for ever for a pipe's writer.
    paths.open_binary(path).close()
    if path.suffix == ".safetensors":
        try:
            loaded = safetensors.numpy.load_file(path)
            return {n: a.astype(np.float32) for n, a in loaded.items()}
        except Exception as error:  # theirs, KeyError, AttributeError...
            raise _unreadable(path, error) from error
    try:
        import torch
    except ImportError as error:
        raise _not_installed(f"reading {path.name}", error) from None
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        # A tensor may repeat a number without end, by a stride of 0.
        stored = path.stat().st_size
        if any(t.numel() * t.element_size() > stored for t in loaded.values()):
            raise ValueError("a tensor larger than the file")
        return {n: t.float().numpy() for n, t in loaded.items()}
    except Exception as error:  # torch raises many kinds for a bad file
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> UserError:
    first = str(error).strip().split("\n")[0][:160]
    return UserError(
        f"{path} is damaged or holds more than weights ({first}): it was not "
        "loaded; fetch it again from a source you trust"
    )


def write_folder(
    found: Weights,
    folder: Path,
    tensors: Mapping[str, np.ndarray],
    values: dict[str, Any],
) -> dict[str, str]:
    """Writes tensors, config.json, the tokenizer's files and a card.

    A fine-tuned model's head goes along.

    Returns:
        TensorFlow 1 name -> HF name of the head, if there is one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if found.vocab_file is not None:
        values = {**values, **_special_ids(found)}
        _write_tokenizer(found, folder)
    sentence_transformers.write(found, folder)
    head, more, about = huggingface_tasks.head(found)
    tensors, values = {**tensors, **more}, {**values, **about}
    safetensors.numpy.save_file(
        dict(tensors), folder / SAFETENSORS, metadata={"format": "pt"}
    )
    paths.write_json(folder / "config.json", values)
    (class_name,) = values["architectures"]
    with paths.atomic_file(folder / "README.md") as stream:
        stream.write(huggingface_card.card(found, class_name))
    return head


def _write_tokenizer(found: Weights, folder: Path) -> None:
    assert found.vocab_file is not None, "the caller looked"
    tokenizer = Tokenizer(found.vocab_file, found.text_settings)
    tokenizer.save(folder)
    if tokenizer.settings.normalize:
        warnings.warn(
            "this model's texts were folded (`normalize`), which transformers' "
            "tokenizer does not do: give it "
            "`albert_tf2.text.normalization.normalize(text)`",
            stacklevel=2,
        )
    paths.write_json(
        folder / TOKENIZER_FILE,
        {
            **TOKENIZER_CONFIG,
            "do_lower_case": tokenizer.settings.do_lower_case,
            "model_max_length": _longest(found),
        },
    )


def _longest(found: Weights) -> int:
    """Returns where their tokenizer cuts: as in fine-tuning, if known."""
    lengths = found.task.get("lengths", {})
    positions = found.config.max_position_embeddings
    return lengths.get("max_seq_length", positions)


def read_text_settings(folder: Path) -> TextSettings | None:
    """Returns what `tokenizer_config.json` says of lower case, if anything.

    What it asks for beyond the originals' tokenizer is warned about: weights
    are of use without it.
    """
    path = folder / TOKENIZER_FILE
    if not path.is_file():
        return None
    values = paths.read_json(path)
    lowers = values.get("do_lower_case", True)
    if not isinstance(lowers, bool):
        raise UserError(
            f"{path}: `do_lower_case` must be true or false. Received: "
            f"{lowers!r}"
        )
    wanted = {"strip_accents": lowers, "tokenize_chinese_chars": True}
    for key, ours in wanted.items():
        if values.get(key) not in (None, ours):
            warnings.warn(
                f"{path}: `{key}` is {values[key]}, which this project's "
                f"tokenizer cannot do: it goes on as with {ours}",
                stacklevel=2,
            )
    return TextSettings(do_lower_case=lowers)


def _special_ids(found: Weights) -> dict[str, int]:
    assert found.vocab_file is not None, "there is a vocabulary to be read"
    vocabulary = Vocabulary.load(found.vocab_file, size=found.config.vocab_size)
    return {
        "pad_token_id": vocabulary.padding_id,
        "bos_token_id": vocabulary.cls_id,
        "eos_token_id": vocabulary.sep_id,
    }


def run(folder: Path, inputs: Mapping[str, np.ndarray]) -> Arrays:
    """Runs a written folder in transformers, which judges the conversion."""
    try:
        import transformers
    except ImportError as error:
        raise _not_installed("checking a Hugging Face folder", error) from None
    (name,) = paths.read_json(folder / "config.json")["architectures"]
    model, report = getattr(transformers, name).from_pretrained(
        folder, output_loading_info=True
    )
    if report["missing_keys"]:
        raise UserError(
            "the written folder lacks "
            f"{weights.listed(sorted(report['missing_keys']))}"
        )
    return huggingface_tasks.run(name, model, inputs)
