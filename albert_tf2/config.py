"""The model's configuration: one JSON file, read strictly.

The file keeps the keys of the `albert_config*.json` files that travel with
checkpoints. An unknown key is an error that names the file, the key and the
nearest known one. How to train is another file: see `recipes`.
"""

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Sequence
from importlib import resources
from typing import Any

from albert_tf2 import paths
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
# How a model is trained, not what its weights mean.
TRAINING_FIELDS = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "initializer_range",
)


def unknown_key(source: str, key: str, known: Sequence[str]) -> UserError:
    """Returns the error for a key that is none of `known`."""
    near = difflib.get_close_matches(key, known, n=1)
    hint = (
        f"did you mean `{near[0]}`?"
        if near
        else f"known keys: {', '.join(sorted(known))}"
    )
    return UserError(f"{source}: unknown key `{key}`; {hint}")


def check_type(source: str, key: str, value: Any, expected: Any) -> Any:
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
            value = check_type(
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
    def from_json(cls, path: paths.PathLike) -> "AlbertConfig":
        """Reads an `albert_config*.json` file, strictly."""
        return cls.from_dict(paths.read_json(path), source=str(path))

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
                raise unknown_key(source, key, known)
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

    def to_json(self, path: paths.PathLike) -> None:
        """Writes an `albert_config.json` that any reader of the field reads."""
        paths.write_json(path, self.to_dict())

    def replace(self, **changes: Any) -> "AlbertConfig":
        """Returns a copy with some fields changed, checked again."""
        return dataclasses.replace(self, **changes)

    def differences(self, other: "AlbertConfig") -> dict[str, tuple[Any, Any]]:
        """Returns the fields in which two models differ, with both values.

        Layers that share their weights have one shape for any number of
        layers, heads, activation and place of LayerNorm: only this tells them
        apart. "gelu" and "gelu_new" are one function.
        """
        found = {
            field.name: (getattr(self, field.name), getattr(other, field.name))
            for field in dataclasses.fields(self)
        }
        same = {"gelu_new": "gelu"}
        return {
            name: (mine, theirs)
            for name, (mine, theirs) in found.items()
            if same.get(mine, mine) != same.get(theirs, theirs)
        }


def load_model_config(name_or_path: str) -> AlbertConfig:
    """Returns a shipped configuration by name, or one read from a file."""
    if str(name_or_path).endswith(".json"):
        return AlbertConfig.from_json(name_or_path)
    return AlbertConfig.from_name(name_or_path)
