"""What decides a model's token ids beside its vocabulary, kept with it.

A model that was trained on lower-cased, folded text must never see another
kind. So wherever a vocabulary lies beside weights, `text_settings.json` lies
there too:

    {
      "do_lower_case": true,
      "normalize": false,
      "special_tokens": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
      "vocab_sha256": "45bbac6b341c..."
    }

It is a file of its own, not keys of `albert_config.json` or `task.json`,
because it belongs to the vocabulary: records have one and no model, and a hub
export keeps it among its assets. Released checkpoints have none; the
originals' defaults are right for them.
"""

import dataclasses
from typing import Any

from albert_tf2 import paths
from albert_tf2.errors import UserError, shown, unknown_key

SETTINGS_FILE = "text_settings.json"
PADDING, UNKNOWN, CLS, SEP, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
SPECIAL_TOKENS = (PADDING, UNKNOWN, CLS, SEP, MASK)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextSettings:
    """How texts become tokens; the defaults are those of the originals.

    Attributes:
        do_lower_case: Lower-case and strip accents, as all released Chinese
            models expect.
        normalize: Fold quotes, dashes and full-width letters first (see
            `albert_tf2.text.normalization`), as for a model whose records
            were built with `--normalize true`.
        special_tokens: How padding, unknown words, beginnings, ends and
            masks are spelled; no others are known here.
        vocab_sha256: `Vocabulary.sha256` of the vocabulary they belong to;
            None where nobody wrote them down.
    """

    do_lower_case: bool = True
    normalize: bool = False
    special_tokens: tuple[str, ...] = SPECIAL_TOKENS
    vocab_sha256: str | None = None

    @classmethod
    def beside(cls, vocab_file: paths.PathLike) -> "TextSettings | None":
        """Reads the settings that lie beside a vocabulary.

        Returns:
            Them, or None where none lie there.

        Raises:
            UserError: If they are damaged or of another program.
        """
        path = paths.join(paths.parent(vocab_file), SETTINGS_FILE)
        if not paths.is_file(path):
            return None
        return cls.from_dict(paths.read_json(path, dict), source=path)

    @classmethod
    def from_dict(
        cls, values: dict[str, Any], *, source: str
    ) -> "TextSettings":
        """Checks values that were read from a file.

        Args:
            values: A JSON object.
            source: How error messages call it.
        """
        kinds = {
            "do_lower_case": bool,
            "normalize": bool,
            "special_tokens": list,
            "vocab_sha256": str,
        }
        for key, value in values.items():
            if key not in kinds:
                raise unknown_key(source, key, tuple(kinds))
            if type(value) is not kinds[key]:
                raise UserError(
                    f"{source}: `{key}` must be of type "
                    f"{kinds[key].__name__}. Received: {shown(value)}"
                )
        special = values.get("special_tokens", list(SPECIAL_TOKENS))
        if special != list(SPECIAL_TOKENS):
            raise UserError(
                f"{source}: `special_tokens` must be {list(SPECIAL_TOKENS)}, "
                f"the only ones that are known. Received: {shown(special)}"
            )
        return cls(**{**values, "special_tokens": SPECIAL_TOKENS})

    def save(self, folder: paths.PathLike) -> None:
        """Writes `text_settings.json` into a folder."""
        path = paths.join(folder, SETTINGS_FILE)
        paths.write_json(path, dataclasses.asdict(self))
