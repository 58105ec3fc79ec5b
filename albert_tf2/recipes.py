"""Recipes: how to train, read strictly from YAML and `--set key=value`.

YAML because a recipe needs comments (command, hardware, expected time and
loss). An unknown key is an error that names the file, the key and the nearest
known one; a value must have its field's type.
"""

import dataclasses
import typing
from collections.abc import Sequence
from typing import Any

from albert_tf2 import files
from albert_tf2.config import (
    AlbertConfig,
    check_type,
    load_model_config,
    unknown_key,
)
from albert_tf2.errors import UserError


def _check_choice(recipe: Any, name: str, choices: Sequence[str]) -> None:
    value = getattr(recipe, name)
    if value not in choices:
        raise UserError(
            f"{type(recipe).__name__}: `{name}` must be one of "
            f"{', '.join(choices)}. Received: `{name}={value!r}`"
        )


def _check_positive(recipe: Any, name: str) -> None:
    value = getattr(recipe, name)
    if value <= 0:
        raise UserError(
            f"{type(recipe).__name__}: `{name}` must be greater than 0. "
            f"Received: `{name}={value}`"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainRecipe:
    """How to pre-train: read from `configs/pretrain_*.yaml`, `--set k=v`."""

    # A shipped model's name, or the path of an albert_config*.json.
    model: str = "albert_tiny_zh"
    # Take the vocabulary's size from the records, not from the model's file.
    vocab_size_from_data: bool = False
    # With --init_checkpoint: the records may have more tokens than the
    # checkpoint; they go behind its last one.
    grow_vocabulary: bool = False
    # Replaces the model's dropout where given (the zh files hold 0.0).
    hidden_dropout_prob: float | None = None
    attention_probs_dropout_prob: float | None = None

    train_steps: int = 125_000
    global_batch_size: int = 4096
    # The batch is cut into this many parts whose gradients are averaged.
    gradient_accumulation_steps: int = 1
    max_seq_length: int = 512
    max_predictions_per_seq: int = 51
    masked_lm_prob: float = 0.10
    # Longest span in words; p(n) is proportional to 1/n. 1 = whole words.
    max_ngram: int = 3
    # plain, or albert_zh: labels keep `##`, for continuing released weights.
    label_style: str = "plain"

    optimizer: str = "lamb"
    learning_rate: float = 1.76e-3
    end_learning_rate: float = 0.0
    warmup_steps: int = 3_125
    # Multiplies the rate by sqrt(global_batch_size / this); null = never.
    scale_learning_rate_from: int | None = None
    weight_decay: float = 0.01
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-6
    clip_norm: float = 1.0
    # The paper divides both moments by 1 - beta^t; the originals do not.
    bias_correction: bool = True
    # paper: every variable adapts (albert_zh); google: LN and bias do not.
    lamb_adaptation: str = "paper"

    # float32, mixed_bfloat16 or mixed_float16; variables stay float32.
    precision: str = "float32"
    jit_compile: bool = False
    # Steps that run on the device per host call.
    steps_per_loop: int = 10

    log_every: int = 100
    checkpoint_every: int = 1000
    eval_every: int = 5000
    keep_checkpoints: int = 3
    # Buffer for mixing records across shards, in records.
    shuffle_buffer: int = 20_000
    # What to do when the loss explodes: stop, or rollback (halves the rate).
    on_divergence: str = "stop"
    seed: int = 20191001

    def __post_init__(self):
        for name, choices in (
            ("label_style", ("plain", "albert_zh")),
            ("optimizer", ("lamb", "adamw")),
            ("lamb_adaptation", ("paper", "google")),
            ("precision", ("float32", "mixed_bfloat16", "mixed_float16")),
            ("on_divergence", ("stop", "rollback")),
        ):
            _check_choice(self, name, choices)
        for name in (
            "train_steps global_batch_size gradient_accumulation_steps "
            "max_seq_length max_predictions_per_seq max_ngram learning_rate "
            "steps_per_loop log_every checkpoint_every eval_every "
            "keep_checkpoints shuffle_buffer clip_norm"
        ).split():
            _check_positive(self, name)
        if self.global_batch_size % self.gradient_accumulation_steps:
            raise UserError(
                "PretrainRecipe: `global_batch_size` must be divisible by "
                "`gradient_accumulation_steps`. Received: "
                f"`global_batch_size={self.global_batch_size}` and "
                "`gradient_accumulation_steps="
                f"{self.gradient_accumulation_steps}`"
            )

    def model_config(self) -> AlbertConfig:
        """Returns the model, with this recipe's dropout where it is set."""
        config = load_model_config(self.model)
        return config.replace(
            **{
                name: getattr(self, name)
                for name in (
                    "hidden_dropout_prob",
                    "attention_probs_dropout_prob",
                )
                if getattr(self, name) is not None
            }
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneRecipe:
    """How to fine-tune: read from `configs/finetune_*.yaml`, `--set k=v`.

    Each task has its own file with the published hyper-parameters; these
    defaults are the originals' for sentence pairs.
    """

    max_seq_length: int = 128
    num_train_epochs: float = 3.0
    # Stops earlier; null = after the epochs. For small budgets.
    max_train_steps: int | None = None
    global_batch_size: int = 32
    eval_batch_size: int = 64

    optimizer: str = "adamw"
    learning_rate: float = 1e-4
    warmup_proportion: float = 0.1
    weight_decay: float = 0.01
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-6
    clip_norm: float = 1.0
    # lamb only (see PretrainRecipe).
    lamb_adaptation: str = "paper"

    # On what the head reads, always; the other two replace the model's.
    classifier_dropout: float = 0.1
    hidden_dropout_prob: float | None = None
    attention_probs_dropout_prob: float | None = None

    # none, or balanced: rows of a class weigh the inverse of its frequency.
    class_weights: str = "none"
    # Evaluations without a better figure before stopping; 0 = never stop.
    early_stopping_patience: int = 0
    # 0 = once per epoch.
    eval_every: int = 0
    checkpoint_every: int = 500
    log_every: int = 50
    # The first rows alone, drawn with the seed; null = all.
    max_train_rows: int | None = None
    max_eval_rows: int | None = None

    # Spans and long texts: the question's room, the step between windows,
    # the longest answer in tokens, how many answers to keep.
    max_query_length: int = 64
    doc_stride: int = 128
    max_answer_length: int = 50
    n_best: int = 20

    # `csv` only: names of the columns and of the labels, where the file
    # does not tell.
    columns: tuple = ()
    labels: tuple = ()

    precision: str = "float32"
    jit_compile: bool = False
    seed: int = 20191001
    # Runs seed, seed + 1, ... and reports the mean and the spread.
    num_seeds: int = 1

    def __post_init__(self):
        for name, choices in (
            ("optimizer", ("adamw", "lamb")),
            ("class_weights", ("none", "balanced")),
            ("precision", ("float32", "mixed_bfloat16", "mixed_float16")),
        ):
            _check_choice(self, name, choices)
        for name in (
            "max_seq_length num_train_epochs global_batch_size "
            "eval_batch_size log_every checkpoint_every num_seeds doc_stride "
            "learning_rate n_best max_answer_length"
        ).split():
            _check_positive(self, name)


def load_recipe(
    recipe_class: type,
    path: files.PathLike | None,
    overrides: Sequence[str] = (),
) -> Any:
    """Reads a recipe and applies `key=value` overrides, typed and strictly.

    Args:
        recipe_class: `PretrainRecipe` or another frozen dataclass.
        path: A YAML file; None means the defaults alone.
        overrides: `key=value` strings, the value in YAML's spelling.

    Raises:
        UserError: For an unknown key or a value of the wrong type.
    """
    import yaml

    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    if path is not None:
        try:
            with open(path, encoding="utf-8") as stream:
                values = yaml.safe_load(stream) or {}
        except OSError as error:
            raise UserError(
                f"{path} cannot be read ({error.strerror}): check the path"
            ) from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise UserError(f"{path} is not valid YAML: {error}") from error
        if not isinstance(values, dict):
            raise UserError(f"{path}: must hold `key: value` lines")
        sources = dict.fromkeys(values, str(path))
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise UserError(
                f"--set must be key=value. Received: `--set {override}`"
            )
        values[key] = yaml.safe_load(text)
        sources[key] = "--set"
    hints = typing.get_type_hints(recipe_class)
    for key in values:
        if key not in hints:
            raise unknown_key(sources[key], str(key), list(hints))
        values[key] = check_type(sources[key], key, values[key], hints[key])
    return recipe_class(**values)
