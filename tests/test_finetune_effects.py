"""Every field of a fine-tuning recipe has its effect on a run.

What a recipe says of lengths is proved for `Lengths` too, of which a tuned
model's `task.json` is made.
"""

import contextlib
import itertools
import types

import numpy as np
import pytest
import task_samples as samples
import tensorflow as tf
from effects import GRADIENTS, Effects, apart, tiny_model
from lamb import HAS_LAMB, OPTIMIZER
from test_reading_comprehension import perfect_logits

from albert_tf2 import finetune
from albert_tf2.finetuning import matching_heads
from albert_tf2.finetuning.run import Run
from albert_tf2.finetuning.step import FinetuneStep
from albert_tf2.finetuning.tuner import Tuner, lengths_of
from albert_tf2.model import recomputation
from albert_tf2.recipes import FinetuneRecipe, Lengths
from albert_tf2.tasks import registry
from albert_tf2.text.tokenization import Tokenizer
from albert_tf2.training import guard
from albert_tf2.training.precision import scales_loss, unwrapped

# Dropout, so that what draws otherwise is seen; a rate that moves weights.
BASE = {
    "optimizer": OPTIMIZER,
    "max_seq_length": 32,
    "max_train_steps": 12,
    "num_train_epochs": 100.0,
    "global_batch_size": 4,
    "learning_rate": 0.01,
    "warmup_proportion": 0.0,
    "hidden_dropout_prob": 0.2,
    "attention_probs_dropout_prob": 0.2,
    "log_every": 100,
    "eval_every": 100,
    "checkpoint_every": 100,
}
EFFECTS = Effects(FinetuneRecipe, BASE)
LENGTHS = Effects(Lengths)


class _Built(Exception):
    """Ends `fine_tune` where it would train: what it built is the argument."""


class Lab:
    """Task files, a model, and what is compared with."""

    def __init__(self, folder, checkpoint):
        self.folder, self.checkpoint = folder, str(checkpoint)
        self.pairs = samples.write_lcqmc(folder / "lcqmc")
        self.tokenizer = Tokenizer(samples.write_vocab(folder))
        self.numbers = itertools.count()
        self.rows = next(self.run().batches(0))
        self.weights = {
            whole: self.after_a_step(whole=whole) for whole in (True, False)
        }

    def data(self, task="lcqmc", folder=None, **changes):
        recipe = FinetuneRecipe(**(BASE | changes))
        task = registry.from_recipe(task, recipe)
        data = finetune.read_data(task, folder or self.pairs, recipe, say=str)
        return recipe, task, data

    def tuner(self, task="lcqmc", **changes):
        """Builds what `fine_tune` trains; returns it and its rows."""
        recipe, task, data = self.data(task, **changes)

        def train(tuner, train_rows, *_, **__):
            raise _Built(tuner, train_rows)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Tuner, "train", train)
            with pytest.raises(_Built) as built:
                finetune.fine_tune(
                    task,
                    data,
                    init_checkpoint=self.checkpoint,
                    recipe=recipe,
                    workdir=self.folder / f"run-{next(self.numbers)}",
                    say=str,
                )
        return built.value.args

    def run(self, *, whole=False, **changes):
        """Returns a run that a teacher takes part in.

        Of a model with two variables if not `whole`.
        """
        if whole:
            tuner, rows = self.tuner(**changes)
        else:
            tuner, rows = self.tiny_tuner(**changes)
        rows = rows[:5]  # four of one class, one of the other
        examples = tuner.task.encode(
            rows, self.tokenizer, tuner.lengths, training=True
        )
        taught = [np.array([n / 2, 1.0]) for n in range(len(rows))]
        with pytest.MonkeyPatch.context() as patch:
            if not whole:
                patch.setattr(
                    FinetuneStep,
                    "gradients",
                    lambda *_: (
                        [tf.constant(value) for value in GRADIENTS],
                        tf.ones([]),
                    ),
                )
            return Run(tuner, examples, rows, rows, taught)

    def tiny_tuner(self, **changes):
        """Returns what a run asks of a tuner, and its rows."""
        recipe, task, data = self.data(**changes)
        strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
        with strategy.scope():
            model = tiny_model()
        tuner = types.SimpleNamespace(
            recipe=recipe,
            task=task,
            model=model,
            strategy=strategy,
            workdir=self.folder / f"run-{next(self.numbers)}",
            say=str,
            fixed_length=None,
            loaded=types.SimpleNamespace(positions=64),
            tokenizer=self.tokenizer,
            lengths=lengths_of(recipe),
        )
        tuner.save_model = tuner.load_best = lambda *_: None
        return tuner, data.train

    def after_a_step(self, **changes):
        """Returns the weights that are kept after the fourth step.

        In the first one neither the betas nor the last rate show.
        """
        run = self.run(**changes)
        unwrapped(run.optimizer).iterations.assign(3)
        batch = self.rows
        if "class_weights" in changes:
            batch = next(run.batches(0))
        # As tensors: without a graph nothing else makes them such.
        batch = {name: tf.constant(array) for name, array in batch.items()}
        run.run_steps(iter([batch]), 3, 1)
        return run.model.get_weights()

    def differs(self, **changes):
        """Checks that a step leads to other weights than the base."""
        before = self.weights[changes.get("whole", False)]
        assert apart(self.after_a_step(**changes), before) > 1e-6, changes

    def looped(self, losses=None, figures=None, **changes):
        """Runs the loop with steps that cost nothing; returns the run."""
        run = self.run(**changes)
        run.calls, run.evaluated = [], []

        def run_steps(batches, step, count):
            run.calls.append((step, count))
            loss = losses(run.calls) if losses else 1.0
            return np.array([[loss, 1.0]] * count, np.float32)

        def evaluate(step):
            run.evaluated.append(step)
            return {"accuracy": 0.5}

        run.batches = itertools.count
        run.run_steps, run.evaluate = run_steps, evaluate
        run.execute()
        return run

    def table(self, task="classification", text=None, **changes):
        """Reads a table of one's own; returns the rows and the task."""
        folder = self.folder / f"table-{next(self.numbers)}"
        folder.mkdir()
        (folder / "train.csv").write_text(text, "utf-8")
        _, task, data = self.data(task, folder, **changes)
        return data.train, task

    def questions(self, lengths):
        """Reads and answers questions; returns examples and answers."""
        folder = self.folder / "cmrc"
        if not folder.exists():
            samples.write_cmrc(folder)
        task = registry.create("cmrc2018")
        rows = task.read(folder, "dev")
        examples = task.encode(rows, self.tokenizer, lengths)
        logits = perfect_logits(examples)
        return examples, task.decode(rows, examples, logits, lengths)


@pytest.fixture(scope="module")
def lab(tmp_path_factory, checkpoint):
    tf.config.run_functions_eagerly(True)
    yield Lab(tmp_path_factory.mktemp("effects"), checkpoint)
    tf.config.run_functions_eagerly(False)


@pytest.mark.parametrize("name", EFFECTS.names)
def test_each_field_has_its_effect(name, lab):
    EFFECTS.check(name, lab)


@pytest.mark.large
@pytest.mark.parametrize("name", EFFECTS.names)
def test_each_proof_fails_when_its_field_is_ignored(name, lab):
    EFFECTS.check_ignored(name, lab)


@pytest.mark.parametrize("name", LENGTHS.names)
def test_each_length_has_its_effect(name, lab):
    LENGTHS.check(name, lab)


@pytest.mark.large
@pytest.mark.parametrize("name", LENGTHS.names)
def test_each_lengths_proof_fails_when_it_is_ignored(name, lab):
    LENGTHS.check_ignored(name, lab)


def test_what_is_compared_with_repeats_itself(lab):
    for whole, before in lab.weights.items():
        assert apart(lab.after_a_step(whole=whole), before) == 0


# A step from the same weights over the same rows ends elsewhere.
OTHERS = {
    "optimizer": "adamw",
    "learning_rate": 0.02,
    "warmup_proportion": 0.9,
    "weight_decay": 0.3,
    "beta_1": 0.5,
    "beta_2": 0.7,
    "epsilon": 0.3,
    "clip_norm": 1e-3,
    "bias_correction": False,
    "lamb_adaptation": "google",
}
# That of a whole model does.
WHOLE = {
    "gradient_accumulation_steps": 2,  # parts draw their dropout apart
    "r_drop": 0.5,
    "distillation_temperature": 5.0,
    "distillation_weight": 0.1,
    "class_weights": "balanced",
}


def other(name, value, **more):
    @EFFECTS.proves(name)
    def _(lab):
        if name in ("lamb_adaptation", "optimizer") and not HAS_LAMB:
            pytest.skip("no LAMB on this line")
        lab.differs(**{name: value}, **more)


for _name, _value in OTHERS.items():
    other(_name, _value)
for _name, _value in WHOLE.items():
    other(_name, _value, whole=True)


@EFFECTS.proves("matching_heads")
def _(lab):
    asked = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            matching_heads,
            "begin",
            lambda _, heads, *__, **___: asked.append(heads),
        )
        lab.looped(matching_heads=3)
    assert asked == [3]


# What these do to a model is in test_dropout.py and test_model_effects.py.
@EFFECTS.proves("hidden_dropout_prob", "attention_probs_dropout_prob")
def _(lab):
    rates = {"hidden_dropout_prob": 0.7, "attention_probs_dropout_prob": 0.6}
    config = lab.tuner(**rates)[0].model.encoder.config
    for name, rate in rates.items():
        assert getattr(config, name) == rate


@EFFECTS.proves("classifier_dropout")
def _(lab):
    model = lab.tuner(classifier_dropout=0.7)[0].model
    assert model.head.dropout.rate == 0.7


@EFFECTS.proves("precision")
def _(lab):
    model = lab.tuner(precision="mixed_bfloat16")[0].model
    assert model.encoder.pooler.compute_dtype == "bfloat16"
    lossy = lab.run(precision="mixed_float16")
    assert scales_loss(lossy.optimizer)


# --- lengths: once for a recipe, once for what is kept of it


def proves_length(proof):
    name = proof.__name__

    @LENGTHS.proves(name)
    def _(lab):
        proof(lab, lambda **given: Lengths(**{"max_seq_length": 32} | given))

    @EFFECTS.proves(name)
    def _(lab):
        proof(lab, lambda **given: lengths_of(FinetuneRecipe(**BASE | given)))

    return proof


@proves_length
def max_seq_length(lab, lengths):
    examples, _ = lab.questions(lengths(max_seq_length=16))
    assert max(example.length for example in examples) == 16


@proves_length
def max_query_length(lab, lengths):
    examples, _ = lab.questions(lengths(max_query_length=3))
    # [CLS] and [SEP] around three.
    assert {example.origin.first_token for example in examples} == {5}


@proves_length
def doc_stride(lab, lengths):
    count = [
        len(lab.questions(lengths(max_seq_length=16, doc_stride=n))[0])
        for n in (2, 128)
    ]
    assert count[0] > count[1]


@proves_length
def max_answer_length(lab, lengths):
    def longest(**given):
        _, answers = lab.questions(lengths(**given))
        return max(
            best["end"] - best["start"]
            for answer in answers
            for best in answer["n_best"]
        )

    assert longest() > longest(max_answer_length=1) == 1


@proves_length
def n_best(lab, lengths):
    _, answers = lab.questions(lengths(n_best=2))
    assert {len(answer["n_best"]) for answer in answers} == {2}


# --- how long, how large


@EFFECTS.proves("num_train_epochs")
def _(lab):
    # Two steps an epoch.
    assert lab.run(num_train_epochs=1.5).total == 3


@EFFECTS.proves("max_train_steps")
def _(lab):
    assert lab.run(max_train_steps=7).total == 7


@EFFECTS.proves("global_batch_size")
def _(lab):
    run = lab.run(global_batch_size=2)
    assert len(next(run.batches(0))["labels"]) == 2
    assert run.steps_per_epoch == 3


@EFFECTS.proves("eval_batch_size")
def _(lab):
    tuner, rows = lab.tuner(eval_batch_size=3)
    sizes = []

    def predict(inputs):
        sizes.append(len(inputs["input_mask"]))
        return np.zeros((sizes[-1], 2), np.float32)

    tuner._predict_step = predict
    assert len(tuner.predict(rows)) == 8
    assert sizes == [3, 3, 2]


@EFFECTS.proves("max_train_rows")
def _(lab):
    _, _, data = lab.data(max_train_rows=3)
    assert (len(data.train), len(data.dev)) == (3, 8)


@EFFECTS.proves("max_eval_rows")
def _(lab):
    _, _, data = lab.data(max_eval_rows=3)
    assert (len(data.train), len(data.dev)) == (8, 3)


# --- when what happens


@EFFECTS.proves("log_every")
def _(lab):
    run = lab.looped(max_train_steps=6, log_every=2)
    lines = (run.tuner.workdir / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 3


@EFFECTS.proves("checkpoint_every")
def _(lab):
    run = lab.looped(max_train_steps=6, checkpoint_every=3)
    assert run.loop.snapshots.steps == [3, 6]


@EFFECTS.proves("keep_checkpoints")
def _(lab):
    few = {"max_train_steps": 6, "checkpoint_every": 2}
    run = lab.looped(keep_checkpoints=1, **few)
    assert run.loop.snapshots.steps == [6]


@EFFECTS.proves("eval_every")
def _(lab):
    run = lab.looped(max_train_steps=6, eval_every=4)
    assert run.evaluated == [4, 6]
    # 0: once per epoch, which is two steps.
    assert lab.looped(max_train_steps=6, eval_every=0).evaluated == [2, 4, 6]


@EFFECTS.proves("early_stopping_patience")
def _(lab):
    run = lab.looped(eval_every=2, early_stopping_patience=2)
    assert run.evaluated == [2, 4, 6]


@EFFECTS.proves("on_divergence")
def _(lab):
    def once(calls):
        return float("nan") if len(calls) == 2 else 1.0

    steps = {"max_train_steps": 6, "checkpoint_every": 2}
    with pytest.raises(guard.Diverged):
        lab.looped(once, **steps)
    run = lab.looped(once, on_divergence="rollback", **steps)
    assert float(run.schedule.scale) == 0.5


@EFFECTS.proves("jit_compile")
def _(lab):
    given = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tf, "function", lambda _, **more: given.update(more) or _)
        lab.run(jit_compile=True)
    assert given["jit_compile"] is True


@EFFECTS.proves("gradient_checkpointing")
def _(lab):
    asked = []

    def twice(enabled):
        asked.append(enabled)
        return contextlib.nullcontext()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recomputation, "layers_twice", twice)
        lab.after_a_step(whole=True, gradient_checkpointing=True)
    assert asked == [True]


@EFFECTS.proves("seed")
def _(lab):
    orders = [
        [
            batch["input_word_ids"].tobytes()
            for batch in itertools.islice(lab.run(seed=seed).batches(0), 6)
        ]
        for seed in (1, 2)
    ]
    assert orders[0] != orders[1]
    # The head's first weights.
    one, other = (lab.tuner(seed=n)[0].model.get_weights() for n in (1, 2))
    assert any((a != b).any() for a, b in zip(one, other, strict=True))
    sampled = [
        [row.text_a for row in lab.data(seed=n, max_train_rows=3)[2].train]
        for n in (1, 2)
    ]
    assert sampled[0] != sampled[1]


@EFFECTS.proves("num_seeds")
def _(lab):
    recipe, task, data = lab.data(num_seeds=3, seed=5)
    seeds = []

    def fine_tune(task, data, *, recipe, workdir, **_):
        seeds.append(recipe.seed)
        (lab.folder / workdir / "model").mkdir(parents=True)
        return {"seed": recipe.seed, "dev": {"accuracy": 0.5}}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetune, "fine_tune", fine_tune)
        finetune.fine_tune_seeds(
            task,
            data,
            recipe=recipe,
            workdir=lab.folder / f"seeds-{next(lab.numbers)}",
            init_checkpoint=lab.checkpoint,
            say=str,
        )
    assert seeds == [5, 6, 7]


@EFFECTS.proves("teacher")
def _(lab):
    np.save(lab.folder / "logits.npy", np.zeros([8, 2]))
    tuner, _ = lab.tuner(teacher=str(lab.folder / "logits.npy"))
    assert tuner.teacher is not None


# --- one's own files


@EFFECTS.proves("columns")
def _(lab):
    text = "甲,天气很好,好\n乙,天气不错,坏\n" * 3
    rows, _ = lab.table(text=text, columns=("label", "text_a", "_"))
    assert [row.label for row in rows[:2]] == ["甲", "乙"]


@EFFECTS.proves("labels")
def _(lab):
    text = "text,label\n" + "天气很好,好\n天气不错,坏\n" * 3
    _, task = lab.table(text=text, labels=("坏", "好", "中"))
    assert task.labels == ("坏", "好", "中")


@EFFECTS.proves("delimiter")
def _(lab):
    text = "text<>label\n" + "天气,好<>好\n天气,不错<>坏\n" * 3
    rows, _ = lab.table(text=text, delimiter="<>")
    assert [row.label for row in rows[:2]] == ["好", "坏"]


@EFFECTS.proves("label_separator")
def _(lab):
    text = "天气很好\t甲+乙\n天气不错\t乙+丙\n" * 10
    _, task = lab.table("multi_label", text, label_separator="+")
    assert set(task.labels) == {"甲", "乙", "丙"}


@EFFECTS.proves("pooling")
def _(lab):
    model = lab.tuner("sentence_vectors", pooling="cls")[0].model
    assert model.pooling == "cls"
    task = registry.from_recipe(
        "sentence_vectors", FinetuneRecipe(pooling="pooled")
    )
    assert task.describe()["pooling"] == "pooled"


@EFFECTS.proves("vector_loss")
def _(lab):
    model = lab.tuner("sentence_vectors", vector_loss="simcse")[0].model
    assert model.vector_loss == "simcse"
