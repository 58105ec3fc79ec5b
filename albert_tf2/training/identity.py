"""What a run is, and what may change between two starts of it.

`RULES` decides field by field. What a path leads to counts, not the path:
data that moved are the same data.
"""

import dataclasses
import json
from typing import Any, NamedTuple

import albert_tf2
from albert_tf2.config import TRAINING_FIELDS, AlbertConfig
from albert_tf2.recipes import FinetuneRecipe, PretrainRecipe
from albert_tf2.text.tokenization import Vocabulary

PRETRAINING, FINETUNING = "pre-training", "fine-tuning"
SEVERAL_SEEDS = "fine-tuning with several seeds"
SWEEP = "sweep of fine-tuning"
RECIPES = {
    PRETRAINING: PretrainRecipe,
    FINETUNING: FinetuneRecipe,
    SEVERAL_SEEDS: FinetuneRecipe,
    SWEEP: FinetuneRecipe,
}
MOST_SHOWN = 60

# It would not be the same run any more.
REFUSED = "refused"
# The run goes on otherwise, and says so; one that is finished would have come
# out otherwise, so there it is refused.
TOLD = "told"
# Told as well, but no result depends on it (rounding aside).
FREE = "free"
# Not looked at: what it leads to is compared instead.
RESOLVED = "resolved"


class Rule(NamedTuple):
    """What becomes of a field that changed, and why."""

    verdict: str
    reason: str = ""


def _table(*rows: tuple[str, str, str]) -> dict[str, Rule]:
    """Returns the rule of each name; `name=value` is for that value alone."""
    return {
        name: Rule(verdict, reason)
        for verdict, names, reason in rows
        for name in names.split()
    }


_ROWS = "which rows come next follows from it"
_BEGINNING = "the run began from other weights"
_SHARED = _table(
    (REFUSED, "seed global_batch_size", _ROWS),
    (REFUSED, "optimizer", "the optimizer's state is of another kind"),
    (REFUSED, "vocabulary", "the ids would mean something else"),
    (REFUSED, "init_checkpoint", _BEGINNING),
    (REFUSED, "train", "it is a run on other data"),
    (TOLD, "learning_rate weight_decay beta_1 beta_2 epsilon clip_norm", ""),
    (TOLD, "lamb_adaptation bias_correction precision", ""),
    (REFUSED, "precision=mixed_float16", "its checkpoints have no loss scale"),
    (TOLD, " ".join(TRAINING_FIELDS), ""),
    (TOLD, "on_divergence", ""),
    (FREE, "jit_compile log_every checkpoint_every keep_checkpoints", ""),
    (FREE, "gradient_checkpointing devices version", ""),
)
RULES = {
    PRETRAINING: _SHARED
    | _table(
        (REFUSED, "shuffle_buffer", _ROWS),
        (REFUSED, "word_vectors attention_heads", _BEGINNING),
        (REFUSED, "label_style", "the labels would mean something else"),
        (TOLD, "train_steps warmup_steps end_learning_rate", ""),
        (TOLD, "grow_depth", ""),
        # What it came to are the steps.
        (FREE, "budget", ""),
        (TOLD, "scale_learning_rate_from", ""),
        (TOLD, "masked_lm_prob max_ngram max_predictions_per_seq", ""),
        # Dropout is drawn for each part of a batch.
        (TOLD, "gradient_accumulation_steps", ""),
        (FREE, "steps_per_loop", ""),
        # An upper limit: the rows are as long as the records have them.
        (FREE, "max_seq_length", ""),
        (FREE, "eval_every eval", ""),
        (RESOLVED, "model vocab_size_from_data grow_vocabulary", ""),
    ),
    FINETUNING: _SHARED
    | _table(
        (REFUSED, "max_train_rows", _ROWS),
        (REFUSED, "matching_heads", _BEGINNING),
        (
            REFUSED,
            "max_seq_length max_query_length doc_stride",
            "texts are cut otherwise",
        ),
        (REFUSED, "dev", "the best model so far was chosen by other rows"),
        (TOLD, "num_train_epochs max_train_steps warmup_proportion", ""),
        (TOLD, "classifier_dropout class_weights", ""),
        # Dropout is drawn for each part of a batch.
        (TOLD, "gradient_accumulation_steps", ""),
        (TOLD, "r_drop", ""),
        (TOLD, "distillation_temperature distillation_weight", ""),
        (REFUSED, "teacher", "it has learned from another teacher"),
        (TOLD, "early_stopping_patience eval_every max_eval_rows", ""),
        (TOLD, "max_answer_length n_best test", ""),
        (FREE, "eval_batch_size num_seeds", ""),
        (
            REFUSED,
            "columns delimiter label_separator",
            "rows are read otherwise",
        ),
        (RESOLVED, "labels pooling vector_loss", ""),
    ),
}
RULES[SEVERAL_SEEDS] = RULES[SWEEP] = RULES[FINETUNING]
# Every field of these is refused, but for those of the table above.
_OBJECTS = {
    "model": Rule(REFUSED, "it is a run of another model"),
    "task": Rule(REFUSED, "it is a run of another task"),
}
# What holds an object, or nothing, where an identity is kept.
SECTIONS = (*_OBJECTS, "data")


class Fingerprint(NamedTuple):
    """Something too large to be kept, by its content.

    Attributes:
        what: For people, such as a file's name.
        sha256: None where it cannot be read any more.
    """

    what: str
    sha256: str | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Identity:
    """What a run is.

    Attributes:
        kind: PRETRAINING, FINETUNING, SEVERAL_SEEDS or SWEEP.
        recipe: How it is asked for.
        data: Its data by subset: "train", "eval"; "train", "dev", "test".
        vocabulary: What its ids mean; None where records bring none.
        model: None where the weights alone tell (a hub encoder).
        task: A fine-tuning task's own description.
        init_checkpoint: The weights that it began from; None for random
            ones, and where a run goes on without naming them again.
        devices: What it runs on.
    """

    kind: str
    recipe: PretrainRecipe | FinetuneRecipe
    data: dict[str, Fingerprint] = dataclasses.field(default_factory=dict)
    vocabulary: Vocabulary | None = None
    model: AlbertConfig | None = None
    task: dict[str, Any] | None = None
    init_checkpoint: Fingerprint | None = None
    devices: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Returns all but the recipe, as run.json holds it."""
        vocabulary = self.vocabulary and Fingerprint(
            f"{len(self.vocabulary):,} tokens", self.vocabulary.sha256
        )
        start = self.init_checkpoint
        values = {
            "kind": self.kind,
            "version": albert_tf2.__version__,
            "devices": self.devices,
            "model": self.model and dataclasses.asdict(self.model),
            "vocabulary": vocabulary and vocabulary._asdict(),
            "data": {name: f._asdict() for name, f in self.data.items()},
            "task": self.task,
            "init_checkpoint": start and start._asdict(),
        }
        return json.loads(json.dumps(values))  # tuples become lists


class Change(NamedTuple):
    """A field that is not what it was, and what becomes of it."""

    name: str
    before: Any
    now: Any
    rule: Rule

    def __str__(self):
        return f"`{self.name}` ({_shown(self.before)}, now {_shown(self.now)})"

    def note(self) -> str:
        """Returns the sentence for a change that is taken."""
        if _is_unreadable(self.now):
            return (
                f"note: `{self.name}` cannot be compared with the run so far: "
                f"{self.now['what']}"
            )
        return (
            f"note: `{self.name}` was {_shown(self.before)} in the run so far "
            f"and is {_shown(self.now)} from now on"
        )


def changes(
    before: dict[str, Any], recipe_before: Any, now: Identity
) -> list[Change]:
    """Returns what differs, each with its rule.

    Args:
        before: `Identity.to_dict` of the start before.
        recipe_before: Its recipe.
        now: What is asked for, of the same kind. What it leaves open does not
            differ.
    """
    asked = now.to_dict()
    kept = {
        name: value
        for name, value in before.items()
        if name == "data" or asked.get(name) is not None
    }
    old = _fields(kept, recipe_before, now.kind)
    new = _fields(asked, now.recipe, now.kind)
    found = []
    for name in new | old:
        (value, rule), (past, _) = (
            fields.get(name, (None, RULES[now.kind].get(name, Rule(REFUSED))))
            for fields in (new, old)
        )
        if _is_unreadable(value):
            found.append(Change(name, past, value, Rule(FREE)))
        elif not _same(past, value):
            found.append(Change(name, past, value, rule))
    return found


def _fields(
    values: dict[str, Any], recipe: Any, kind: str
) -> dict[str, tuple[Any, Rule]]:
    """Returns all that is compared, by the names that users know."""
    rules = RULES[kind]
    fields = {
        name: (value, rules.get(f"{name}={value}", rules[name]))
        for name, value in dataclasses.asdict(recipe).items()
        if rules[name].verdict != RESOLVED
    }
    for section, rule in _OBJECTS.items():
        for name, value in (values.get(section) or {}).items():
            own = rules.get(name, rule)
            fields[name] = (value, rule if own.verdict == RESOLVED else own)
    for name in ("vocabulary", "init_checkpoint", "devices", "version"):
        if values.get(name) is not None:
            fields[name] = (values[name], rules[name])
    for name, value in (values.get("data") or {}).items():
        fields[name] = (value, rules.get(name, Rule(REFUSED)))
    return fields


def _is_unreadable(value: Any) -> bool:
    return _is_fingerprint(value) and value["sha256"] is None


def _is_fingerprint(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"what", "sha256"}


def _same(before: Any, now: Any) -> bool:
    if _is_fingerprint(before) and _is_fingerprint(now):
        return before["sha256"] == now["sha256"]
    # As JSON holds them: tuples become lists. 3 and 3.0 are the same.
    return json.loads(json.dumps(before)) == json.loads(json.dumps(now))


def _shown(value: Any) -> str:
    if _is_fingerprint(value):
        return f"{value['what']}, SHA-256 {str(value['sha256'])[:12]}"
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN - 3]}..."
