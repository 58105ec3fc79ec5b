"""How to train: the keys of `configs/*.yaml`, with what each may be.

docs/settings.md is made from this file. `load_recipe` reads a recipe and
`--set key=value`.
"""

import dataclasses
from importlib import metadata, util

from albert_tf2 import settings
from albert_tf2.config import AlbertConfig, load_model_config
from albert_tf2.errors import UserError, install_line
from albert_tf2.recipe_file import load_recipe
from albert_tf2.settings import (
    ATTENTION_HEADS,
    LABEL_STYLES,
    LAMB_ADAPTATIONS,
    MAX_BATCH,
    MAX_LENGTH,
    MAX_SEED,
    MAX_STEPS,
    OPTIMIZERS,
    POOLINGS,
    PRECISIONS,
    VECTOR_LOSSES,
    WORD_VECTORS,
    setting,
)

__all__ = [
    "FinetuneRecipe",
    "Lengths",
    "PretrainRecipe",
    "lamb_missing",
    "load_recipe",
    "require_optimizer",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainRecipe:
    """How to pre-train: read from `configs/pretrain_*.yaml`, `--set k=v`."""

    model: str = setting(
        "albert_tiny_zh",
        "A shipped model's name, or the path of an albert_config*.json.",
    )
    vocab_size_from_data: bool = setting(
        False,
        "Take the vocabulary's size from the records, not from the model's "
        "file.",
    )
    grow_vocabulary: bool = setting(
        False,
        "With --init_checkpoint: the records may have more tokens than the "
        "checkpoint; they go behind its last one.",
    )
    hidden_dropout_prob: float | None = setting(
        None,
        "Dropout on the outputs of each layer, in place of the model's (0 in "
        "the zh files; 1909.11942, section 4.8).",
        least=0.0,
        below=1.0,
    )
    attention_probs_dropout_prob: float | None = setting(
        None,
        "Dropout on the attention's probabilities, in place of the model's.",
        least=0.0,
        below=1.0,
    )

    word_vectors: str = setting(
        "random",
        "What the word embeddings of a new model begin with: random numbers, "
        "or what is counted in the records about who stands near whom.",
        choices=WORD_VECTORS,
    )
    attention_heads: str = setting(
        "random",
        "What the attention heads of a new model begin with: random numbers, "
        "or that some of them look at a neighbour each, others at the same "
        "word in the other text.",
        choices=ATTENTION_HEADS,
    )

    train_steps: int = setting(
        125_000,
        "Optimizer steps of the whole run (1909.11942, section 4.1).",
        least=1,
        most=MAX_STEPS,
    )
    budget: str | None = setting(
        None,
        "A time such as 90s, 150m or 2h in place of `train_steps`: the first "
        "steps are measured, and the run has as many as it pays for; the "
        "warm-up keeps its share of them. null: `train_steps`.",
    )
    grow_depth: str | None = setting(
        None,
        "Shared layers alone: depths to begin with, and their shares of the "
        "steps, as in `1:0.5,2:0.25`: the block is applied once for half of "
        "the steps, twice for a quarter, and then as the model says.",
    )
    global_batch_size: int = setting(
        4096,
        "Rows of a step, over all devices (1909.11942, section 4.1).",
        least=1,
        most=MAX_BATCH,
    )
    gradient_accumulation_steps: int = setting(
        1,
        "Parts into which a device cuts its rows, to average their "
        "gradients; more parts need less memory.",
        least=1,
        most=MAX_BATCH,
    )
    max_seq_length: int = setting(
        512,
        "An upper limit only: rows keep the length that the records were "
        "built with, and longer records are refused.",
        least=5,
        most=MAX_LENGTH,
    )
    max_predictions_per_seq: int = setting(
        51,
        "The most masked tokens of a row; never more than `masked_lm_prob` "
        "of it.",
        least=1,
        most=MAX_LENGTH,
    )
    masked_lm_prob: float = setting(
        0.10,
        "Share of the tokens to mask (albert_zh: 0.10; 1810.04805, section "
        "3.1: 0.15).",
        above=0.0,
        most=0.9,
    )
    max_ngram: int = setting(
        3,
        "Longest masked span, in words, drawn with p(n) proportional to 1/n "
        "(1909.11942, section 4.1); 1 masks single whole words.",
        least=1,
        most=9,
    )
    label_style: str = setting(
        "plain",
        "What a masked character's label is: `plain`, or `albert_zh`, whose "
        "labels keep `##`, to continue its released weights.",
        choices=LABEL_STYLES,
    )

    optimizer: str = setting(
        "lamb",
        "LAMB (1904.00962, algorithm 2), or AdamW (1711.05101).",
        choices=OPTIMIZERS,
    )
    learning_rate: float = setting(
        1.76e-3,
        "The rate at the end of the warm-up (1909.11942, section 4.1).",
        least=1e-12,
        most=1e9,
    )
    end_learning_rate: float = setting(
        0.0,
        "The rate at the last step; at most `learning_rate`.",
        least=0.0,
        most=1e9,
    )
    warmup_steps: int = setting(
        3_125,
        "Steps over which the rate grows from 0 (1904.00962, table 4); if "
        "that is the whole run or more, a tenth of the run instead.",
        least=0,
        most=MAX_STEPS,
    )
    scale_learning_rate_from: int | None = setting(
        None,
        "The batch that `learning_rate` suits: the rate is multiplied by "
        "sqrt(global_batch_size / this) (1904.00962, section 4); null leaves "
        "it.",
        least=1,
        most=MAX_BATCH,
    )
    weight_decay: float = setting(
        0.01,
        "Decay of all weights but biases and LayerNorm (1810.04805, appendix "
        "A.2).",
        least=0.0,
        most=1.0,
    )
    beta_1: float = setting(
        0.9,
        "Decay of the first moment (1904.00962, algorithm 2).",
        least=0.0,
        below=1.0,
    )
    beta_2: float = setting(
        0.999,
        "Decay of the second moment (1904.00962, algorithm 2).",
        least=0.0,
        below=1.0,
    )
    epsilon: float = setting(
        1e-6,
        "Added to the root of the second moment (1904.00962, algorithm 2).",
        least=1e-30,
        most=1.0,
    )
    clip_norm: float = setting(
        1.0,
        "Longer gradients, over all variables, are shortened to this norm.",
        above=0.0,
        most=1e9,
    )
    bias_correction: bool = setting(
        True,
        "Divide both moments by 1 - beta^t, as the paper does and Google's "
        "and albert_zh's programs do not.",
    )
    lamb_adaptation: str = setting(
        "paper",
        "Which variables LAMB scales by their trust ratio: all (`paper`, as "
        "albert_zh), or all but biases and LayerNorm (`google`).",
        choices=LAMB_ADAPTATIONS,
    )

    precision: str = setting(
        "float32",
        "What layers compute in; variables stay float32.",
        choices=PRECISIONS,
    )
    jit_compile: bool = setting(False, "Compile the step with XLA.")
    gradient_checkpointing: bool = setting(
        False,
        "Keep each layer's input alone and compute the layer again in the "
        "backward pass (1604.06174): less memory for more time, the same "
        "numbers.",
    )
    steps_per_loop: int = setting(
        10,
        "Steps that run on the device for each call from the host.",
        least=1,
        most=100_000,
    )

    log_every: int = setting(
        100,
        "Steps between rows of metrics.jsonl.",
        least=1,
        most=MAX_STEPS,
    )
    checkpoint_every: int = setting(
        1000,
        "Steps between checkpoints.",
        least=1,
        most=MAX_STEPS,
    )
    eval_every: int = setting(
        5000,
        "Steps between evaluations on the held-out records.",
        least=1,
        most=MAX_STEPS,
    )
    keep_checkpoints: int = setting(
        3, "Newest checkpoints to keep.", least=1, most=100_000
    )
    shuffle_buffer: int = setting(
        20_000,
        "Records that are mixed across shards, and held in memory for it.",
        least=1,
        most=10_000_000,
    )
    on_divergence: str = setting(
        "stop",
        "What to do when the loss explodes: `stop`, or `rollback` to the last "
        "checkpoint with half the rate.",
        choices=("stop", "rollback"),
    )
    seed: int = setting(
        20191001,
        "Decides first weights, order, masks and dropout.",
        least=0,
        most=MAX_SEED,
    )

    def __post_init__(self):
        settings.check(self)
        if self.budget is not None and not settings.seconds(self.budget):
            raise settings.broken(
                self,
                "`budget` must be a time above 0, such as 90s, 150m or 2h",
                "budget",
            )
        if self.global_batch_size % self.gradient_accumulation_steps:
            raise settings.broken(
                self,
                "`global_batch_size` must be divisible by "
                "`gradient_accumulation_steps`",
                "global_batch_size",
                "gradient_accumulation_steps",
            )
        if self.end_learning_rate > self.learning_rate:
            raise settings.broken(
                self,
                "`end_learning_rate` must be at most `learning_rate`",
                "end_learning_rate",
                "learning_rate",
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
class Lengths:
    """How a task's texts are cut: part of a recipe, and of a tuned model."""

    max_seq_length: int = setting(
        128,
        "Tokens of an input, with [CLS] and [SEP]; longer texts are cut, or "
        "read in windows.",
        # [CLS] a [SEP] b [SEP]: a token of each text.
        least=5,
        most=MAX_LENGTH,
    )
    max_query_length: int = setting(
        64,
        "Reading comprehension: tokens of the question (1810.04805's "
        "program); never more than half of the input, so that the text has "
        "room.",
        least=1,
        most=MAX_LENGTH,
    )
    doc_stride: int = setting(
        128,
        "Tokens from one window of a long text to the next (1810.04805's "
        "program), or what a window holds if that is less.",
        least=1,
        most=MAX_LENGTH,
    )
    max_answer_length: int = setting(
        50,
        "Reading comprehension: tokens of the longest answer.",
        least=1,
        most=MAX_LENGTH,
    )
    n_best: int = setting(
        20,
        "Reading comprehension: answers to keep for each question.",
        least=1,
        most=1000,
    )

    def __post_init__(self):
        settings.check(self)

    @property
    def question_room(self) -> int:
        """The most tokens of a question: [CLS] question [SEP] text [SEP].

        The originals take `max_query_length` alone; at 64 of 64 nothing of
        the text is left, and one long question makes windows without end.
        """
        return min(self.max_query_length, (self.max_seq_length - 3) // 2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneRecipe(Lengths):
    """How to fine-tune: read from `configs/finetune_*.yaml`, `--set k=v`.

    Each task has its own file with the published hyper-parameters; these
    defaults are the originals' for sentence pairs.
    """

    num_train_epochs: float = setting(
        3.0,
        "How often each row is seen; parts of an epoch count.",
        above=0.0,
        most=100_000.0,
    )
    max_train_steps: int | None = setting(
        None,
        "Stop after so many steps, for small budgets; null: after the epochs.",
        least=1,
        most=MAX_STEPS,
    )
    global_batch_size: int = setting(
        32, "Rows of a step, over all devices.", least=1, most=MAX_BATCH
    )
    gradient_accumulation_steps: int = setting(
        1,
        "Parts into which a device cuts its rows, to average their "
        "gradients; more parts need less memory.",
        least=1,
        most=MAX_BATCH,
    )
    eval_batch_size: int = setting(
        64,
        "Rows of a step without training, over all devices.",
        least=1,
        most=MAX_BATCH,
    )

    optimizer: str = setting(
        "adamw",
        "AdamW (1711.05101), or LAMB (1904.00962, algorithm 2).",
        choices=OPTIMIZERS,
    )
    learning_rate: float = setting(
        1e-4,
        "The rate at the end of the warm-up.",
        least=1e-12,
        most=1e9,
    )
    warmup_proportion: float = setting(
        0.1,
        "Share of the steps over which the rate grows from 0.",
        least=0.0,
        below=1.0,
    )
    weight_decay: float = setting(
        0.01,
        "Decay of all weights but biases and LayerNorm (1810.04805, appendix "
        "A.2).",
        least=0.0,
        most=1.0,
    )
    beta_1: float = setting(
        0.9, "Decay of the first moment.", least=0.0, below=1.0
    )
    beta_2: float = setting(
        0.999, "Decay of the second moment.", least=0.0, below=1.0
    )
    epsilon: float = setting(
        1e-6,
        "Added to the root of the second moment.",
        least=1e-30,
        most=1.0,
    )
    clip_norm: float = setting(
        1.0,
        "Longer gradients, over all variables, are shortened to this norm.",
        above=0.0,
        most=1e9,
    )
    bias_correction: bool = setting(
        True,
        "Divide both moments by 1 - beta^t; without it, as in the originals, "
        "small sets fail for some seeds (2006.05987).",
    )
    lamb_adaptation: str = setting(
        "paper",
        "LAMB only: which variables it scales by their trust ratio, all "
        "(`paper`), or all but biases and LayerNorm (`google`).",
        choices=LAMB_ADAPTATIONS,
    )

    classifier_dropout: float = setting(
        0.1,
        "Dropout on what the task's head reads.",
        least=0.0,
        below=1.0,
    )
    hidden_dropout_prob: float | None = setting(
        None,
        "Dropout on the outputs of each layer, in place of the model's.",
        least=0.0,
        below=1.0,
    )
    attention_probs_dropout_prob: float | None = setting(
        None,
        "Dropout on the attention's probabilities, in place of the model's.",
        least=0.0,
        below=1.0,
    )

    matching_heads: int = setting(
        0,
        "Pairs of texts: attention heads that begin anew, at the same word in "
        "the other text, in place of those that add least; 0 leaves all as "
        "they are.",
        least=0,
        most=1000,
    )
    r_drop: float = setting(
        0.0,
        "Weight of the divergence between two passes with other dropout "
        "(2106.14448); costs a second pass. 0: one pass.",
        least=0.0,
        most=1e6,
    )
    teacher: str | None = setting(
        None,
        "What to learn from beside the labels (1503.02531): the folder of a "
        "fine-tuned model, or logits of the training rows (.npy, .jsonl).",
    )
    distillation_temperature: float = setting(
        2.0,
        "With `teacher`: both logits are divided by it.",
        above=0.0,
        most=1000.0,
    )
    distillation_weight: float = setting(
        0.5,
        "With `teacher`: its share of the loss; the labels have the rest.",
        least=0.0,
        most=1.0,
    )
    class_weights: str = setting(
        "none",
        "`balanced`: a row weighs the inverse of its class's frequency.",
        choices=("none", "balanced"),
    )
    early_stopping_patience: int = setting(
        0,
        "Evaluations without a better figure before the run stops; 0: never.",
        least=0,
        most=MAX_STEPS,
    )
    eval_every: int = setting(
        0,
        "Steps between evaluations on the dev rows; 0: once per epoch.",
        least=0,
        most=MAX_STEPS,
    )
    checkpoint_every: int = setting(
        500, "Steps between checkpoints.", least=1, most=MAX_STEPS
    )
    log_every: int = setting(
        50, "Steps between rows of metrics.jsonl.", least=1, most=MAX_STEPS
    )
    keep_checkpoints: int = setting(
        2, "Newest checkpoints to keep.", least=1, most=100_000
    )
    on_divergence: str = setting(
        "stop",
        "What to do when the loss explodes: `stop`, or `rollback` to the last "
        "checkpoint with half the rate.",
        choices=("stop", "rollback"),
    )
    max_train_rows: int | None = setting(
        None,
        "Train on so many rows, drawn with the seed; null: on all.",
        least=1,
        most=MAX_STEPS,
    )
    max_eval_rows: int | None = setting(
        None,
        "Evaluate on so many dev rows, drawn with the seed; null: on all.",
        least=1,
        most=MAX_STEPS,
    )

    columns: tuple[str, ...] = setting(
        (),
        "Your own tables: what the columns are (id, text_a, text_b, label, _ "
        "to pass over one), or `role=name in the header`; empty: found.",
        blanks=True,
        repeats=True,
    )
    labels: tuple[str, ...] = setting(
        (),
        "Your own files: the labels, or the types of entities, in their "
        "order; empty: as in the training rows.",
    )
    delimiter: str | None = setting(
        None,
        "Your own tables: what stands between cells, `tab` for a tab; null: "
        "found.",
    )
    label_separator: str | None = setting(
        None,
        "Task `multi_label`: what stands between the labels of a cell, "
        "`space` for a space; null: found.",
    )

    pooling: str = setting(
        "mean",
        "Task `sentence_vectors`: what a text's vector is: the mean of its "
        "tokens' vectors, that of [CLS], or the pooler's.",
        choices=POOLINGS,
    )
    vector_loss: str | None = setting(
        None,
        "Task `sentence_vectors`: `cosent` learns from pairs with labels "
        "(Su 2022), `simcse` from texts alone (2104.08821); null: by the "
        "training file.",
        choices=VECTOR_LOSSES,
    )

    precision: str = setting(
        "float32",
        "What layers compute in; variables stay float32.",
        choices=PRECISIONS,
    )
    jit_compile: bool = setting(False, "Compile the step with XLA.")
    gradient_checkpointing: bool = setting(
        False,
        "Keep each layer's input alone and compute the layer again in the "
        "backward pass (1604.06174): less memory for more time, the same "
        "numbers.",
    )
    seed: int = setting(
        20191001,
        "Decides the head's first weights, order and dropout.",
        least=0,
        most=MAX_SEED,
    )
    num_seeds: int = setting(
        1,
        "Runs, with seed, seed + 1, ..., of which mean and spread are told.",
        least=1,
        most=1000,
    )

    def __post_init__(self):
        super().__post_init__()
        if self.global_batch_size % self.gradient_accumulation_steps:
            raise settings.broken(
                self,
                "`global_batch_size` must be divisible by "
                "`gradient_accumulation_steps`",
                "global_batch_size",
                "gradient_accumulation_steps",
            )


def require_optimizer(recipe: PretrainRecipe | FinetuneRecipe) -> None:
    """Raises a `UserError` if no package here has the recipe's optimizer."""
    if recipe.optimizer == "lamb" and not any(
        util.find_spec(name) for name in ("official", "tensorflow_addons")
    ):
        raise lamb_missing()


def lamb_missing() -> UserError:
    """Returns the error for a machine without LAMB."""
    try:
        here = f"; here is {metadata.version('tensorflow')}"
    except metadata.PackageNotFoundError:  # under another name: -cpu
        here = ""
    return UserError(
        "LAMB comes with tf-models-official, for TensorFlow 2.15 to 2.20 "
        f"(the tested lines: 2.15 and 2.20{here}): {install_line('train')} on "
        "one of these, or pass --set optimizer=adamw"
    )
