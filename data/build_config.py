"""Everything that decides which bytes the builder writes."""

import dataclasses

from albert_tf2.settings import (
    LABEL_STYLES,
    MAX_LENGTH,
    MAX_SEED,
    setting,
)

from .read_config import ReadConfig
from .units import UNIT_BYTES
from .words import SEGMENTERS

# One pair for every 32 tokens: at 512 even lines of chat fill a row.
TOKENS_PER_PAIR = 32


@dataclasses.dataclass(frozen=True)
class BuildConfig(ReadConfig):
    """The settings of a build; the same settings give the same bytes.

    The number of workers is not among them.
    """

    max_seq_length: int = setting(
        512, "Tokens of a row, with [CLS] and [SEP].", least=5, most=MAX_LENGTH
    )
    max_pairs_per_record: int = setting(
        0,
        f"The most pairs in a row; 0: one for every {TOKENS_PER_PAIR} tokens.",
        least=0,
        most=MAX_LENGTH,
    )
    short_seq_prob: float = setting(
        0.1,
        "How often a pair is shorter than it could be (1909.11942, section "
        "4.1).",
        least=0.0,
        most=1.0,
    )
    seed: int = setting(
        12345,
        "Decides pairs, order and what is held out.",
        least=0,
        most=MAX_SEED,
    )
    eval_fraction: float = setting(
        0.01,
        "Share of the documents that is held out, in shards of its own.",
        least=0.0,
        most=0.9,
    )
    drop_duplicates: str = setting(
        "none",
        "Leave out documents that stand earlier in the corpus: `exact`, or "
        "`near` too (most 5-grams shared); costs a reading of the corpus.",
        choices=("none", "exact", "near"),
    )
    min_han_share: float = setting(
        0.0,
        "Leave out documents with a smaller share of Chinese characters among "
        "their tokens.",
        least=0.0,
        most=1.0,
    )
    segmenter: str = setting(
        "rjieba",
        "What finds words, which are masked as a whole; `none`: WordPiece's "
        "words, for English and the like.",
        choices=SEGMENTERS,
    )
    do_lower_case: bool = setting(
        True, "Lower letters and strip accents, as all released models do."
    )
    num_shards: int = setting(
        0,
        "Files of the training records; 0: one per 128 MB of corpus, at least "
        "8.",
        least=0,
        most=99_999,
    )
    unit_bytes: int = setting(
        UNIT_BYTES,
        "Bytes of text that a worker takes at a time; longer documents are "
        "split.",
        least=64,
        most=1 << 30,
    )
    masking: str = setting(
        "dynamic",
        "`dynamic`: training draws masks afresh in each epoch; `static`: they "
        "are drawn here, into albert_zh's classic records.",
        choices=("dynamic", "static"),
    )
    dupe_factor: int = setting(
        10,
        "Static masking: copies of each pair, with other masks.",
        least=1,
        most=1000,
    )
    masked_lm_prob: float = setting(
        0.1,
        "Static masking: share of the tokens to mask.",
        above=0.0,
        most=0.9,
    )
    max_predictions_per_seq: int = setting(
        0,
        "Static masking: the most masked tokens of a row; 0: what "
        "`masked_lm_prob` needs.",
        least=0,
        most=MAX_LENGTH,
    )
    max_ngram: int = setting(
        3,
        "Static masking: longest masked span, in words.",
        least=1,
        most=9,
    )
    label_style: str = setting(
        "plain",
        "Static masking: what a masked character's label is; `albert_zh` "
        "keeps `##`.",
        choices=LABEL_STYLES,
    )

    def __post_init__(self) -> None:
        super().__post_init__()

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
