"""Everything that decides which bytes the builder writes."""

import dataclasses

from albert_tf2.errors import UserError

from .corpus import UNIT_BYTES
from .words import SEGMENTERS

CHOICES = {
    "segmenter": SEGMENTERS,
    "masking": ("dynamic", "static"),
    "label_style": ("plain", "albert_zh"),
    # What to do about a line that is not UTF-8.
    "on_error": ("fail", "skip"),
}
# One pair for every 32 tokens: at 512 even lines of chat fill a row.
TOKENS_PER_PAIR = 32


@dataclasses.dataclass(frozen=True)
class BuildConfig:
    """The settings of a build; the same settings give the same bytes.

    The number of workers is not among them.
    """

    max_seq_length: int = 512
    # The most pairs in a row; 0 chooses one for every `TOKENS_PER_PAIR`.
    max_pairs_per_record: int = 0
    # How often a pair is shorter than it could be.
    short_seq_prob: float = 0.1
    seed: int = 12345
    # Share of the documents that is held out, in shards of its own.
    eval_fraction: float = 0.01
    segmenter: str = "rjieba"
    do_lower_case: bool = True
    # Fold quotes, dashes and full-width letters (text.normalization).
    normalize: bool = False
    on_error: str = "fail"
    # 0 chooses one per 128 MB of corpus, at least 8.
    num_shards: int = 0
    # Bytes of text that a worker takes at a time; pairs are packed and
    # documents longer than this are split within them.
    unit_bytes: int = UNIT_BYTES
    masking: str = "dynamic"
    # The rest is for static masking only.
    dupe_factor: int = 10
    masked_lm_prob: float = 0.1
    max_predictions_per_seq: int = 0  # 0 chooses what masked_lm_prob needs
    max_ngram: int = 3
    label_style: str = "plain"

    def __post_init__(self) -> None:
        for name, least, most in (
            ("max_seq_length", 5, 1 << 16),
            ("max_pairs_per_record", 0, 1 << 16),
            ("short_seq_prob", 0, 1),
            ("eval_fraction", 0, 0.9),
            ("num_shards", 0, 99_999),
            ("unit_bytes", 64, 1 << 30),
            ("dupe_factor", 1, 1000),
            ("masked_lm_prob", 0, 0.9),
            ("max_predictions_per_seq", 0, 1 << 16),
            ("max_ngram", 1, 9),
        ):
            if not least <= getattr(self, name) <= most:
                raise UserError(
                    f"--{name} must be within {least} and {most}. "
                    f"Received: {getattr(self, name)!r}"
                )
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise UserError(
                    f"--{name} must be one of {', '.join(choices)}. "
                    f"Received: {getattr(self, name)!r}"
                )

    def resolved(self, corpus_bytes: int) -> "BuildConfig":
        """Returns the settings with every 0 replaced by what it chooses."""
        length = self.max_seq_length
        static = self.masking == "static"
        return dataclasses.replace(
            self,
            max_pairs_per_record=1
            if static
            else self.max_pairs_per_record or max(1, length // TOKENS_PER_PAIR),
            num_shards=self.num_shards or max(8, -(-corpus_bytes >> 27)),
            max_predictions_per_seq=self.max_predictions_per_seq
            or max(1, round(length * self.masked_lm_prob)),
        )
