"""The model's configuration: one JSON file, read strictly.

The file keeps the keys of the `albert_config*.json` files that travel with
checkpoints. An unknown key is an error that names the file, the key and the
nearest known one. How to train is another file: see `recipes`.
"""

import dataclasses
import json
from importlib import resources
from typing import Any

from albert_tf2 import paths, settings
from albert_tf2.errors import UserError, cut, nearest_hint
from albert_tf2.settings import MAX_LENGTH, REQUIRED, setting

# Keys that the historic files carry and no program ever read.
IGNORED_MODEL_KEYS = frozenset(
    "directionality pooler_fc_size pooler_num_attention_heads "
    "pooler_num_fc_layers pooler_size_per_head pooler_type net_structure_type "
    "gap_size num_memory_blocks down_scale_factor model_type "
    "share_parameter_across_layers use_einsum layers_to_keep".split()
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
ACTIVATIONS = ("gelu", "gelu_new", "gelu_erf", "relu")
# The widest ALBERT is 4,096 wide and has 235 million parameters.
MAX_WIDTH = 1 << 16
MAX_PARAMETERS = 10**10


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlbertConfig:
    """Sizes and variants of an ALBERT model (Lan et al., 1909.11942).

    Keys and defaults are those of albert_zh's and Google's files; `layout` and
    `parameter_sharing` are ours. In a file without `layout` it follows from
    the keys: `num_hidden_groups` makes it `google`, else `brightmart`.

    Example:
        >>> config = AlbertConfig.from_name("albert_tiny_zh")
        >>> config.hidden_size, config.num_hidden_layers, config.layout
        (312, 4, 'brightmart')
        >>> config.replace(num_hidden_layers=6).differences(config)
        {'num_hidden_layers': (6, 4)}

    Raises:
        UserError: If a field is out of its range, or two do not go together.
    """

    vocab_size: int = setting(
        REQUIRED,
        "Tokens of the vocabulary; 21,128 in the released Chinese models.",
        least=1,
        most=10_000_000,
    )
    embedding_size: int = setting(
        128,
        "Width of the word vectors, before they are projected to "
        "`hidden_size` (1909.11942, section 3.1).",
        least=1,
        most=MAX_WIDTH,
    )
    hidden_size: int = setting(
        768,
        "Width of the layers; a multiple of `num_attention_heads`.",
        least=1,
        most=MAX_WIDTH,
    )
    num_hidden_layers: int = setting(
        12,
        "Layers that a token passes, whether they share weights or not.",
        least=1,
        most=1000,
    )
    num_attention_heads: int = setting(
        12, "Heads of each layer's attention.", least=1, most=MAX_WIDTH
    )
    intermediate_size: int = setting(
        3072,
        "Inner width of the feed-forward part; 4 times `hidden_size` in all "
        "released models.",
        least=1,
        most=4 * MAX_WIDTH,
    )
    hidden_act: str = setting(
        "gelu",
        "The feed-forward part's activation; `gelu` and `gelu_new` are the "
        "tanh form, `gelu_erf` is the exact one (1606.08415).",
        choices=ACTIVATIONS,
    )
    hidden_dropout_prob: float = setting(
        0.0,
        "Dropout on the outputs of each layer (1909.11942, section 4.8).",
        least=0.0,
        below=1.0,
    )
    attention_probs_dropout_prob: float = setting(
        0.0,
        "Dropout on the attention's probabilities.",
        least=0.0,
        below=1.0,
    )
    max_position_embeddings: int = setting(
        512, "The most tokens of an input.", least=1, most=MAX_LENGTH
    )
    type_vocab_size: int = setting(
        2, "Kinds of segment: text a and text b.", least=1, most=1000
    )
    initializer_range: float = setting(
        0.02,
        "Standard deviation of the first weights (1810.04805's program).",
        above=0.0,
        most=10.0,
    )
    layout: str = setting(
        "brightmart",
        "Where the embeddings widen. brightmart: word vectors are projected, "
        "token types and positions are at `hidden_size`; google: all are at "
        "`embedding_size`, then projected with a bias.",
        choices=LAYOUTS,
    )
    ln_type: str = setting(
        "postln",
        "Where LayerNorm stands; always after in the google layout.",
        choices=LN_TYPES,
    )
    num_hidden_groups: int = setting(
        1,
        "google only: groups of weights; layer l of L uses group "
        "int(l / L * num_hidden_groups).",
        least=1,
        most=1000,
    )
    inner_group_num: int = setting(
        1, "google only: blocks in each group.", least=1, most=100
    )
    parameter_sharing: str = setting(
        "all",
        "What the layers share (1909.11942, section 4.5): all, the attention "
        "only, the feed-forward part only, or none.",
        choices=PARAMETER_SHARING,
    )

    def __post_init__(self):
        settings.check(self)
        if self.hidden_size % self.num_attention_heads:
            raise settings.broken(
                self,
                "`hidden_size` must be divisible by `num_attention_heads`",
                "hidden_size",
                "num_attention_heads",
            )
        self._check_layout()
        self._check_size()

    def _check_layout(self) -> None:
        grouped = self.num_hidden_groups > 1 or self.inner_group_num > 1
        if self.layout == "google" and self.ln_type == "preln":
            raise settings.broken(
                self,
                "`ln_type` must be postln in the google layout: it has no "
                "pre-LN variant",
                "layout",
                "ln_type",
            )
        if self.layout == "brightmart" and grouped:
            raise settings.broken(
                self,
                "`layout` must be google for groups",
                "layout",
                "num_hidden_groups",
                "inner_group_num",
            )
        if grouped and self.parameter_sharing != "all":
            raise settings.broken(
                self,
                "`parameter_sharing` other than all needs one group",
                "parameter_sharing",
                "num_hidden_groups",
                "inner_group_num",
            )

    def _check_size(self) -> None:
        """Refuses sizes that are fine one by one, and absurd together."""
        blocks = self.num_hidden_groups * self.inner_group_num
        if self.parameter_sharing != "all":
            blocks = self.num_hidden_layers
        block = self.hidden_size * (
            4 * self.hidden_size + 2 * self.intermediate_size
        )
        words = self.vocab_size * self.embedding_size
        if words + blocks * block > MAX_PARAMETERS:
            raise settings.broken(
                self,
                f"the model must have at most {MAX_PARAMETERS:,} parameters",
                "vocab_size",
                "embedding_size",
                "hidden_size",
                "intermediate_size",
            )

    @classmethod
    def from_name(cls, name: str) -> "AlbertConfig":
        """Returns a shipped configuration.

        Args:
            name: One of `configs/albert_*.json`, without the ending:
                "albert_tiny_zh_google".

        Raises:
            UserError: If there is none of that name; it lists them.
        """
        folder = resources.files("albert_tf2.configs")
        known = sorted(
            entry.name.removesuffix(".json")
            for entry in folder.iterdir()
            if entry.name.endswith(".json")
        )
        if name not in known:
            hint = nearest_hint(name, known) or "."
            raise UserError(
                f"no configuration is named `{cut(name)}`{hint} Known names: "
                f"{', '.join(known)}"
            )
        values = json.loads((folder / f"{name}.json").read_text("utf-8"))
        return cls.from_dict(values, source=f"{name}.json")

    @classmethod
    def from_json(cls, path: paths.PathLike) -> "AlbertConfig":
        """Reads an `albert_config*.json` file, strictly.

        Args:
            path: The file, local or remote.

        Raises:
            UserError: If the file is missing or no JSON, a key is unknown, or
                a value out of its range.
        """
        return cls.from_dict(paths.read_json(path, dict), paths.shown(path))

    @classmethod
    def from_dict(
        cls, values: dict[str, Any], source: str = "config"
    ) -> "AlbertConfig":
        """Builds a configuration from a file's keys.

        Args:
            values: Keys of an `albert_config*.json` file. `ln_type` null means
                postln, as in albert_zh; any value but "postln" means preln.
            source: The file's name, for error messages.

        Raises:
            UserError: If a key is unknown or a value out of its range.
        """
        if not isinstance(values, dict):
            raise UserError(f"{source}: must hold a JSON object of keys")
        kept = {k: v for k, v in values.items() if k not in IGNORED_MODEL_KEYS}
        kept.setdefault(
            "layout",
            "google" if "num_hidden_groups" in kept else "brightmart",
        )
        if "ln_type" in kept:
            post = kept["ln_type"] in (None, "postln")
            kept["ln_type"] = "postln" if post else "preln"
        return settings.create(cls, kept, source)

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
        """Writes an `albert_config.json` that any reader of the field reads.

        Args:
            path: The file, local or remote.
        """
        paths.write_json(path, self.to_dict())

    def replace(self, **changes: Any) -> "AlbertConfig":
        """Returns a copy with some fields changed, checked again.

        Args:
            **changes: Fields and their new values.

        Raises:
            UserError: If a value is out of its range.
        """
        return dataclasses.replace(self, **changes)

    def differences(self, other: "AlbertConfig") -> dict[str, tuple[Any, Any]]:
        """Returns the fields in which two models differ, with both values.

        Layers that share their weights have one shape for any number of
        layers, heads, activation and place of LayerNorm: only this tells them
        apart. "gelu" and "gelu_new" are one function.

        Args:
            other: The model to compare with.

        Returns:
            By field: (ours, the other's).
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
