"""Configurations: the model (JSON) and the recipes (YAML), read strictly.

The model's file keeps the keys of the `albert_config*.json` files that travel
with checkpoints. A recipe says how to train: it is YAML because a recipe needs
comments (command, hardware, expected time and loss). An unknown key is an
error that names the file, the key and the nearest known one.
"""

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Sequence
from importlib import resources
from typing import Any

from albert_tf2 import files
from albert_tf2.errors import UserError

# Keys that the historic files carry and no program ever read.
IGNORED_MODEL_KEYS = frozenset(
    "directionality pooler_fc_size pooler_num_attention_heads "
    "pooler_num_fc_layers pooler_size_per_head pooler_type net_structure_type "
    "gap_size num_memory_blocks down_scale_factor model_type "
    "share_parameter_across_layers use_einsum".split()
)
LAYOUTS = ("brightmart", "google")
LN_TYPES = ("postln", "preln")
PARAMETER_SHARING = ("all", "attention", "ffn", "none")


def _unknown_key(source: str, key: str, known: Sequence[str]) -> UserError:
    near = difflib.get_close_matches(key, known, n=1)
    hint = (
        f"did you mean `{near[0]}`?"
        if near
        else f"known keys: {', '.join(sorted(known))}"
    )
    return UserError(f"{source}: unknown key `{key}`; {hint}")


def _check_type(source: str, key: str, value: Any, expected: Any) -> Any:
    """Returns `value` as `expected`, which may be a union; ints pass as floats.

    YAML reads `1e-4` as a string (it wants a dot), so numbers in strings are
    taken where a number is expected.
    """
    if typing.get_origin(expected) in (typing.Union, types.UnionType):
        if value is None and type(None) in typing.get_args(expected):
            return None
        expected = next(
            kind for kind in typing.get_args(expected) if kind is not type(None)
        )
    if expected is float and not isinstance(value, (bool, float)):
        try:
            return float(value)
        except (TypeError, ValueError):
            pass
    expected = typing.get_origin(expected) or expected
    if expected is tuple and isinstance(value, list):
        return tuple(value)
    mistaken_bool = isinstance(value, bool) and expected is not bool
    if not isinstance(value, expected) or mistaken_bool:
        raise UserError(
            f"{source}: `{key}` must be of type {expected.__name__}. "
            f"Received: `{key}={value!r}`"
        )
    return value


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlbertConfig:
    """Sizes and variants of an ALBERT model (Lan et al., 1909.11942).

    Keys and defaults are those of albert_zh's and Google's files; `layout` and
    `parameter_sharing` are ours. In a file without `layout` it follows from
    the keys: `num_hidden_groups` makes it `google`, else `brightmart`.
    """

    vocab_size: int
    embedding_size: int = 128
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    # brightmart: token types and positions at hidden size, MLM head H -> H.
    # google: all embeddings at embedding size, then a projection with a bias.
    layout: str = "brightmart"
    # Where LayerNorm stands; google is always postln.
    ln_type: str = "postln"
    # google only: layer l of L uses group int(l / L * num_hidden_groups).
    num_hidden_groups: int = 1
    inner_group_num: int = 1
    # What the layers share (1909.11942, section 4.5): all, the attention
    # only, the feed-forward only, or none.
    parameter_sharing: str = "all"

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = _check_type(
                "AlbertConfig",
                field.name,
                getattr(self, field.name),
                field.type,
            )
            object.__setattr__(self, field.name, value)
            if field.type is int and value < 1:
                raise UserError(
                    f"AlbertConfig: `{field.name}` must be at least 1. "
                    f"Received: `{field.name}={value}`"
                )
        self._check_choice("layout", LAYOUTS)
        self._check_choice("ln_type", LN_TYPES)
        self._check_choice("parameter_sharing", PARAMETER_SHARING)
        self._check_choice(
            "hidden_act", ("gelu", "gelu_new", "gelu_erf", "relu")
        )
        if self.hidden_size % self.num_attention_heads:
            raise UserError(
                "AlbertConfig: `hidden_size` must be divisible by "
                "`num_attention_heads`. Received: "
                f"`hidden_size={self.hidden_size}` and "
                f"`num_attention_heads={self.num_attention_heads}`"
            )
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise UserError(
                    f"AlbertConfig: `{name}` must lie in [0, 1). "
                    f"Received: `{name}={getattr(self, name)}`"
                )
        self._check_layout()

    def _check_choice(self, name: str, choices: Sequence[str]) -> None:
        if getattr(self, name) not in choices:
            raise UserError(
                f"AlbertConfig: `{name}` must be one of {', '.join(choices)}. "
                f"Received: `{name}={getattr(self, name)!r}`"
            )

    def _check_layout(self) -> None:
        grouped = self.num_hidden_groups > 1 or self.inner_group_num > 1
        if self.layout == "google" and self.ln_type == "preln":
            raise UserError(
                "AlbertConfig: the google layout has no pre-LN variant. "
                "Received: `layout='google'` and `ln_type='preln'`"
            )
        if self.layout == "brightmart" and grouped:
            raise UserError(
                "AlbertConfig: groups belong to the google layout. Received: "
                f"`layout='brightmart'`, `num_hidden_groups="
                f"{self.num_hidden_groups}`, `inner_group_num="
                f"{self.inner_group_num}`"
            )
        if grouped and self.parameter_sharing != "all":
            raise UserError(
                "AlbertConfig: `parameter_sharing` other than 'all' needs "
                "one group. Received: `parameter_sharing="
                f"{self.parameter_sharing!r}`, `num_hidden_groups="
                f"{self.num_hidden_groups}`"
            )

    @classmethod
    def from_name(cls, name: str) -> "AlbertConfig":
        """Returns a shipped configuration, e.g. "albert_tiny_zh_google"."""
        folder = resources.files("albert_tf2.configs")
        known = sorted(
            entry.name.removesuffix(".json")
            for entry in folder.iterdir()
            if entry.name.endswith(".json")
        )
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" did you mean `{near[0]}`?" if near else ""
            raise UserError(
                f"no configuration is named `{name}`;{hint} known names: "
                f"{', '.join(known)}"
            )
        values = json.loads((folder / f"{name}.json").read_text("utf-8"))
        return cls.from_dict(values, source=f"{name}.json")

    @classmethod
    def from_json(cls, path: files.PathLike) -> "AlbertConfig":
        """Reads an `albert_config*.json` file, strictly."""
        return cls.from_dict(files.read_json(path), source=str(path))

    @classmethod
    def from_dict(
        cls, values: dict[str, Any], source: str = "config"
    ) -> "AlbertConfig":
        """Builds a configuration from a file's keys.

        Args:
            values: Keys of an `albert_config*.json` file. `ln_type` null means
                postln, as in albert_zh; any value but "postln" means preln.
            source: The file's name, for error messages.
        """
        if not isinstance(values, dict):
            raise UserError(f"{source}: must hold a JSON object of keys")
        known = [field.name for field in dataclasses.fields(cls)]
        kept = {}
        for key, value in values.items():
            if key in IGNORED_MODEL_KEYS:
                continue
            if key not in known:
                raise _unknown_key(source, key, known)
            kept[key] = value
        if "vocab_size" not in kept:
            raise UserError(f"{source}: `vocab_size` is missing: add it")
        kept.setdefault(
            "layout",
            "google" if "num_hidden_groups" in kept else "brightmart",
        )
        if "ln_type" in kept:
            post = kept["ln_type"] in (None, "postln")
            kept["ln_type"] = "postln" if post else "preln"
        try:
            return cls(**kept)
        except UserError as error:
            raise UserError(
                str(error).replace("AlbertConfig", source, 1)
            ) from None

    def to_dict(self) -> dict[str, Any]:
        """Returns the keys of this layout's file, ours only where needed."""
        values = dataclasses.asdict(self)
        if self.layout == "google":
            del values["ln_type"]
        else:
            del values["num_hidden_groups"], values["inner_group_num"]
        if self.parameter_sharing == "all":
            del values["parameter_sharing"]
        return values

    def to_json(self, path: files.PathLike) -> None:
        """Writes an `albert_config.json` that any reader of the field reads."""
        files.write_json(path, self.to_dict())

    def replace(self, **changes: Any) -> "AlbertConfig":
        """Returns a copy with some fields changed, checked again."""
        return dataclasses.replace(self, **changes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainRecipe:
    """How to pre-train: read from `configs/pretrain_*.yaml`, `--set k=v`."""

    # A shipped model's name, or the path of an albert_config*.json.
    model: str = "albert_tiny_zh"
    # Take the vocabulary's size from the records, not from the model's file.
    vocab_size_from_data: bool = False
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
            if getattr(self, name) not in choices:
                raise UserError(
                    f"PretrainRecipe: `{name}` must be one of "
                    f"{', '.join(choices)}. Received: "
                    f"`{name}={getattr(self, name)!r}`"
                )
        for name in (
            "train_steps global_batch_size gradient_accumulation_steps "
            "max_seq_length max_predictions_per_seq max_ngram learning_rate "
            "steps_per_loop log_every checkpoint_every eval_every "
            "keep_checkpoints shuffle_buffer clip_norm"
        ).split():
            if getattr(self, name) <= 0:
                raise UserError(
                    f"PretrainRecipe: `{name}` must be greater than 0. "
                    f"Received: `{name}={getattr(self, name)}`"
                )
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
            if getattr(self, name) not in choices:
                raise UserError(
                    f"FinetuneRecipe: `{name}` must be one of "
                    f"{', '.join(choices)}. Received: "
                    f"`{name}={getattr(self, name)!r}`"
                )
        for name in (
            "max_seq_length num_train_epochs global_batch_size "
            "eval_batch_size log_every checkpoint_every num_seeds doc_stride "
            "learning_rate n_best max_answer_length"
        ).split():
            if getattr(self, name) <= 0:
                raise UserError(
                    f"FinetuneRecipe: `{name}` must be greater than 0. "
                    f"Received: `{name}={getattr(self, name)}`"
                )


def load_model_config(name_or_path: str) -> AlbertConfig:
    """Returns a shipped configuration by name, or one read from a file."""
    if str(name_or_path).endswith(".json"):
        return AlbertConfig.from_json(name_or_path)
    return AlbertConfig.from_name(name_or_path)


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
            raise _unknown_key(sources[key], str(key), list(hints))
        values[key] = _check_type(sources[key], key, values[key], hints[key])
    return recipe_class(**values)
