"""Names of record keys, model inputs and labels: each spelled once, here.

Letters used for shapes everywhere: B batch, T sequence, P predictions,
K pairs in a row, E embedding, H hidden, N heads, D per head, I intermediate,
V vocabulary.
"""

# Compact records, the default: a pair is stored once, unmasked.
TOKENS = "tokens"  # bytes: ids of a1 b1 a2 b2 ..., top bit = a word begins
SEGMENT_LENGTHS = "segment_lengths"  # int64 [2K]: a1, b1, a2, b2, ...

# Classic records, already masked, as albert_zh and Google write them.
CLASSIC_INPUT_IDS = "input_ids"
CLASSIC_SEGMENT_IDS = "segment_ids"
CLASSIC_SENTENCE_ORDER = "next_sentence_labels"

# Model inputs: the TF Hub text API. All int32.
INPUT_WORD_IDS = "input_word_ids"  # [B, T]
INPUT_MASK = "input_mask"  # [B, T]
INPUT_TYPE_IDS = "input_type_ids"  # [B, T]
ENCODER_INPUTS = (INPUT_WORD_IDS, INPUT_MASK, INPUT_TYPE_IDS)

# What the pretrainer takes besides.
MASKED_LM_POSITIONS = "masked_lm_positions"  # [B, P]

# Rows that hold several pairs add these (see `masking.py`).
INPUT_PAIR_IDS = "input_pair_ids"  # [B, T]: 0 padding, k = the k-th pair
INPUT_POSITION_IDS = "input_position_ids"  # [B, T]: restarts at each [CLS]
CLS_POSITIONS = "cls_positions"  # [B, K]
PACKED_INPUTS = (INPUT_PAIR_IDS, INPUT_POSITION_IDS, CLS_POSITIONS)

# Labels.
MASKED_LM_IDS = "masked_lm_ids"  # [B, P]
MASKED_LM_WEIGHTS = "masked_lm_weights"  # [B, P] float32
SENTENCE_ORDER_LABELS = "sentence_order_labels"  # [B, K]; 1 = swapped
SENTENCE_ORDER_WEIGHTS = "sentence_order_weights"  # [B, K] float32
LABELS = (
    MASKED_LM_IDS,
    MASKED_LM_WEIGHTS,
    SENTENCE_ORDER_LABELS,
    SENTENCE_ORDER_WEIGHTS,
)

# The one renaming: classic record key -> our name.
CLASSIC_TO_BATCH = {
    CLASSIC_INPUT_IDS: INPUT_WORD_IDS,
    INPUT_MASK: INPUT_MASK,
    CLASSIC_SEGMENT_IDS: INPUT_TYPE_IDS,
    MASKED_LM_POSITIONS: MASKED_LM_POSITIONS,
    MASKED_LM_IDS: MASKED_LM_IDS,
    MASKED_LM_WEIGHTS: MASKED_LM_WEIGHTS,
    CLASSIC_SENTENCE_ORDER: SENTENCE_ORDER_LABELS,
}

# Model outputs.
SEQUENCE_OUTPUT = "sequence_output"  # [B, T, H]
POOLED_OUTPUT = "pooled_output"  # [B, H]
DEFAULT = "default"  # the pooled output again
ENCODER_OUTPUTS = "encoder_outputs"  # list of L x [B, T, H]
MLM_LOGITS = "mlm_logits"  # [B, P, V]
SOP_LOGITS = "sop_logits"  # [B, 2], or [B, K, 2] for packed rows
