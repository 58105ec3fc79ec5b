"""A Hugging Face folder: tensors, config.json, tokenizer, and running it."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from albert_tf2 import features, paths
from albert_tf2.checkpoints import weights
from albert_tf2.checkpoints.locate import SAFETENSORS
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


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """Reads .safetensors, or a .bin without running what is pickled in it."""
    try:
        if path.suffix == ".safetensors":
            from safetensors import SafetensorError
            from safetensors.numpy import load_file

            try:
                loaded = load_file(path)
            except (SafetensorError, KeyError, OSError) as error:
                raise _unreadable(path, error) from error
            return {n: a.astype(np.float32) for n, a in loaded.items()}
        import torch
    except ImportError as error:
        raise _not_installed(f"reading {path.name}", error) from None
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
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
    """Writes tensors, config.json and the tokenizer's paths.

    A fine-tuned classifier's head goes along, unless it has albert_zh's
    LayerNorm for pre-LN models, which no Hugging Face class has.

    Returns:
        TensorFlow 1 name -> HF name of the head, if there is one.
    """
    try:
        from safetensors.numpy import save_file
    except ImportError as error:
        raise _not_installed("writing a Hugging Face folder", error) from None
    folder.mkdir(parents=True, exist_ok=True)
    if found.vocab_file is not None:
        values = {**values, **_special_ids(found)}
        _write_tokenizer(found, folder)
    head = {}
    if _is_classifier(found):
        head = {
            "output_weights": "classifier.weight",
            "output_bias": "classifier.bias",
        }
        tensors = {
            **tensors,
            **{hf: found.task_arrays[name] for name, hf in head.items()},
        }
        count = len(found.task_arrays["output_bias"])
        labels = found.task_labels or [f"LABEL_{i}" for i in range(count)]
        values = {
            **values,
            "id2label": {str(i): label for i, label in enumerate(labels)},
            "label2id": {label: i for i, label in enumerate(labels)},
        }
    save_file(dict(tensors), folder / SAFETENSORS, metadata={"format": "pt"})
    paths.write_json(folder / "config.json", values)
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
            "model_max_length": found.config.max_position_embeddings,
        },
    )


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


def _is_classifier(found: Weights) -> bool:
    return (
        "output_weights" in found.task_arrays
        and found.task_kind == "classification"
    )


def architecture(found: Weights) -> str:
    """Returns what follows "Albert" or "Bert" in the class that fits."""
    if _is_classifier(found):
        return "ForSequenceClassification"
    return "ForPreTraining" if found.heads else "Model"


def run(folder: Path, inputs: Mapping[str, np.ndarray]) -> Arrays:
    """Runs a written folder in transformers, which judges the conversion."""
    try:
        import torch
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

    taken = {
        "input_ids": inputs[features.INPUT_WORD_IDS],
        "attention_mask": inputs[features.INPUT_MASK],
        "token_type_ids": inputs[features.INPUT_TYPE_IDS],
    }
    taken = {key: torch.tensor(value).long() for key, value in taken.items()}
    model.eval()
    with torch.no_grad():
        encoded = getattr(model, model.base_model_prefix, model)(**taken)
        outputs = model(**taken)
    found = {
        features.SEQUENCE_OUTPUT: encoded.last_hidden_state,
        features.POOLED_OUTPUT: encoded.pooler_output,
    }
    if "prediction_logits" in outputs:
        rows = torch.arange(len(taken["input_ids"]))[:, None]
        positions = inputs[features.MASKED_LM_POSITIONS]
        found[features.MLM_LOGITS] = outputs.prediction_logits[
            rows, torch.tensor(positions).long()
        ]
        # Albert says `sop_logits`, BERT `seq_relationship_logits`.
        found[features.SOP_LOGITS] = outputs[1]
    return {name: tensor.numpy() for name, tensor in found.items()}
