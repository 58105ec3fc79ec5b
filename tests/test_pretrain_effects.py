"""Every field of a pre-training recipe has its effect on a run."""

import contextlib
import itertools

import numpy as np
import pytest
import tensorflow as tf
from effects import GRADIENTS, Effects, apart, tiny_model
from lamb import HAS_LAMB, OPTIMIZER
from small_records import TOKENS, write_set

from albert_tf2 import AlbertConfig
from albert_tf2.checkpoints import warm_start
from albert_tf2.errors import UserError
from albert_tf2.model import recomputation
from albert_tf2.pretraining import (
    budget,
    first_heads,
    recipe_parts,
    word_vectors,
)
from albert_tf2.pretraining import run as pretraining_run
from albert_tf2.pretraining.run import Run
from albert_tf2.pretraining.step import PretrainStep
from albert_tf2.recipes import PretrainRecipe
from albert_tf2.records import masking
from albert_tf2.records.record_set import open_records
from albert_tf2.training import guard
from albert_tf2.training.precision import scales_loss, unwrapped
from albert_tf2.training.workers import Workers

SMALL = {
    "embedding_size": 4,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "intermediate_size": 8,
    "max_position_embeddings": 32,
    "initializer_range": 0.1,
}
# Dropout, so that what draws otherwise is seen; a rate that moves weights.
BASE = {
    "optimizer": OPTIMIZER,
    "train_steps": 12,
    "global_batch_size": 4,
    "max_seq_length": 32,
    "learning_rate": 0.01,
    "warmup_steps": 0,
    "hidden_dropout_prob": 0.2,
    "attention_probs_dropout_prob": 0.2,
    "shuffle_buffer": 1,
    "log_every": 100,
    "eval_every": 100,
    "checkpoint_every": 100,
}
EFFECTS = Effects(PretrainRecipe, BASE)


def masked(masker, *, rows=40):
    """Masks rows of two long sentences; returns the batch."""
    tokens = np.full((rows, 28), 9, np.int32)
    starts = np.ones((rows, 28), bool)
    lengths = np.tile(np.array([[14, 14]], np.int32), (rows, 1))
    keys = masking.row_keys(1, tf.range(rows, dtype=tf.int64))
    return masker(
        *map(tf.constant, (tokens, starts, lengths)), keys, packed=True
    )


class Lab:
    """Records, two models of other widths, and what is compared with."""

    def __init__(self, folder):
        self.folder = folder
        write_set(folder / "records", [9, 8, 8], held_out=3)
        self.records = open_records(str(folder / "records"))
        for name, width in (("model", 8), ("other", 12)):
            config = AlbertConfig(
                vocab_size=len(TOKENS), **SMALL | {"hidden_size": width}
            )
            config.to_json(folder / f"{name}.json")
        # That of the records is 200.
        config.replace(vocab_size=190).to_json(folder / "fewer.json")
        # A step's rows, the same for all that is compared.
        self.rows = masked(self.masker(), rows=4)
        self.weights = {
            whole: self.after_a_step(whole=whole) for whole in (True, False)
        }

    def recipe(self, **changes):
        model = str(self.folder / "model.json")
        return PretrainRecipe(**({"model": model} | BASE | changes))

    def run(self, workdir="none", *, whole=False, **changes):
        """Builds a run; of a model with two variables if not `whole`."""
        with pytest.MonkeyPatch.context() as patch:
            if not whole:
                patch.setattr(
                    pretraining_run, "AlbertPretrainer", lambda _: tiny_model()
                )
                patch.setattr(
                    PretrainStep,
                    "gradients",
                    lambda *_: (
                        [tf.constant(value) for value in GRADIENTS],
                        tf.ones([7]),
                    ),
                )
            return Run(
                self.recipe(**changes),
                str(self.folder / "records"),
                self.folder / workdir,
                "one_device",
            )

    def after_a_step(self, **changes):
        """Returns the weights after what counts as the fourth step.

        In the first one neither the betas nor the last rate show.
        """
        run = self.run(**changes)
        unwrapped(run.optimizer).iterations.assign(3)
        run.run_steps(iter([self.rows]), 3, 1)
        return run.model.get_weights()

    def differs(self, **changes):
        """Checks that a step leads to other weights than the base."""
        before = self.weights[changes.get("whole", False)]
        assert apart(self.after_a_step(**changes), before) > 1e-6, changes

    def looped(self, losses=None, **changes):
        """Runs the loop with steps that cost nothing; returns the run.

        `calls` has (first step, steps) of each call, `evaluated` the steps
        at which it was.
        """
        run = self.run(f"loop-{len(list(self.folder.iterdir()))}", **changes)
        run.calls, run.evaluated = [], []

        def run_steps(batches, step, count):
            run.calls.append((step, count))
            rows = np.ones((count, len(run.metrics)), np.float32)
            rows[:, 0] = losses(run.calls) if losses else 1.0
            return rows

        def evaluate(step):
            run.evaluated.append(step)
            return {"loss": 1.0}

        run.batches = itertools.count
        run.run_steps, run.evaluate = run_steps, evaluate
        run.logged = lambda row, speed: (row, {})
        run.loop.run()
        return run

    def logged(self, **changes):
        run = self.looped(**changes)
        lines = (run.workdir / "metrics.jsonl").read_text().splitlines()
        return len(lines)

    def read(self, **changes):
        """Returns what a run asks of the pipeline."""
        asked = {}
        run = self.run(**changes)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                pretraining_run.pipeline,
                "training_dataset",
                lambda *_, **more: (
                    asked.update(more) or tf.data.Dataset.range(1)
                ),
            )
            run.batches(0)
        return asked

    def masker(self, **changes):
        config = AlbertConfig.from_json(self.folder / "model.json")
        return recipe_parts.create_masker(
            self.recipe(**changes), self.records, config
        )


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    tf.config.run_functions_eagerly(True)
    yield Lab(tmp_path_factory.mktemp("effects"))
    tf.config.run_functions_eagerly(False)


@pytest.mark.parametrize("name", EFFECTS.names)
def test_each_field_has_its_effect(name, lab):
    EFFECTS.check(name, lab)


@pytest.mark.large
@pytest.mark.parametrize("name", EFFECTS.names)
def test_each_proof_fails_when_its_field_is_ignored(name, lab):
    EFFECTS.check_ignored(name, lab)


def test_what_is_compared_with_repeats_itself(lab):
    for whole, before in lab.weights.items():
        assert apart(lab.after_a_step(whole=whole), before) == 0


# A step from the same weights over the same rows ends elsewhere.
OTHERS = {
    "optimizer": "adamw",
    "learning_rate": 0.02,
    "end_learning_rate": 0.005,
    "warmup_steps": 8,
    "scale_learning_rate_from": 1,
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
    "seed": 11,
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


# What these do to a model is in test_model_effects.py.
@EFFECTS.proves("hidden_dropout_prob")
def _(lab):
    assert lab.run(hidden_dropout_prob=0.7).config.hidden_dropout_prob == 0.7


@EFFECTS.proves("attention_probs_dropout_prob")
def _(lab):
    config = lab.run(attention_probs_dropout_prob=0.7).config
    assert config.attention_probs_dropout_prob == 0.7


@EFFECTS.proves("precision")
def _(lab):
    model = lab.run(whole=True, precision="mixed_bfloat16").model
    assert model.encoder.pooler.compute_dtype == "bfloat16"
    lossy = lab.run(precision="mixed_float16")
    assert scales_loss(lossy.optimizer)


@EFFECTS.proves("model")
def _(lab):
    other = lab.run(model=str(lab.folder / "other.json"))
    assert other.config.hidden_size == 12


@EFFECTS.proves("vocab_size_from_data")
def _(lab):
    fewer = str(lab.folder / "fewer.json")
    with pytest.raises(UserError, match="vocab_size_from_data"):
        lab.run(model=fewer)
    run = lab.run(model=fewer, vocab_size_from_data=True)
    assert run.config.vocab_size == len(TOKENS)


@EFFECTS.proves("grow_vocabulary")
def _(lab):
    with pytest.raises(UserError, match="grows the table of a checkpoint"):
        lab.run("grows", grow_vocabulary=True).start(None)
    asked = []
    patch = pytest.MonkeyPatch()
    with patch.context() as patched:
        patched.setattr(
            pretraining_run,
            "warm_start",
            lambda *_, grow, **__: asked.append(grow),
        )
        for grow in (True, False):
            run = lab.run(f"grows-{grow}", grow_vocabulary=grow)
            run.start(lab.folder / "model.json")
    assert asked == [True, False]
    assert pretraining_run.warm_start is warm_start.warm_start


@EFFECTS.proves("train_steps")
def _(lab):
    lab.differs(train_steps=6)  # the rate falls faster
    calls = lab.looped(train_steps=3, steps_per_loop=10).calls
    assert calls == [(0, 3)]


# What follows from it is in test_budget.py.
@EFFECTS.proves("budget")
def _(lab):
    class Measured(Exception):
        pass

    def new_run(recipe):
        raise Measured

    with pytest.raises(Measured):
        budget.resolved(
            lab.recipe(budget="2h"), lab.folder / "timed", new_run, Workers()
        )


# What a stage is to a step is in test_growth.py.
@EFFECTS.proves("grow_depth")
def _(lab):
    config = AlbertConfig.from_json(lab.folder / "model.json")
    deep = lab.folder / "deep.json"
    config.replace(num_hidden_layers=2).to_json(deep)
    run = lab.run(model=str(deep), grow_depth="1:0.5")
    assert [stage.depth for stage in run.stages] == [1, 2]


# What is counted, and that it is seen in a run, is in test_word_vectors.py.
@EFFECTS.proves("word_vectors")
def _(lab):
    run = lab.run("counted", word_vectors="counted")
    with pytest.MonkeyPatch.context() as patch:
        begun = []
        patch.setattr(
            word_vectors, "begin_with", lambda *_, **__: begun.append(True)
        )
        run.start(None)
    assert begun


# Where they look is in test_first_heads.py.
@EFFECTS.proves("attention_heads")
def _(lab):
    run = lab.run("heads", attention_heads="constructed")
    with pytest.MonkeyPatch.context() as patch:
        begun = []
        patch.setattr(
            first_heads, "begin_with", lambda *_, **__: begun.append(True)
        )
        run.start(None)
    assert begun


# What these do to the rows is in test_input_pipeline.py.
@EFFECTS.proves("global_batch_size")
def _(lab):
    assert lab.read(global_batch_size=6)["global_batch_size"] == 6


@EFFECTS.proves("shuffle_buffer")
def _(lab):
    assert lab.read(shuffle_buffer=27)["shuffle_buffer"] == 27


@EFFECTS.proves("max_seq_length")
def _(lab):
    with pytest.raises(UserError, match="recipe's limit is 16"):
        lab.run(max_seq_length=16)


@EFFECTS.proves("max_predictions_per_seq")
def _(lab):
    assert recipe_parts.predictions_of(lab.recipe(), lab.records) == 3
    few = {"max_predictions_per_seq": 2, "masked_lm_prob": 0.5}
    assert recipe_parts.predictions_of(lab.recipe(**few), lab.records) == 2
    assert masked(lab.masker(**few))["masked_lm_ids"].shape[-1] == 2


@EFFECTS.proves("masked_lm_prob")
def _(lab):
    counts = [
        masked(lab.masker(masked_lm_prob=share))["masked_lm_weights"]
        .numpy()
        .sum(-1)
        .mean()
        for share in (0.1, 0.4)
    ]
    assert counts[1] > 2 * counts[0]


@EFFECTS.proves("max_ngram")
def _(lab):
    def neighbours(**changes):
        found = masked(lab.masker(masked_lm_prob=0.1, **changes))
        positions = found["masked_lm_positions"].numpy()
        return (np.diff(positions, axis=-1) == 1).mean()

    assert neighbours() > 2 * neighbours(max_ngram=1)


@EFFECTS.proves("label_style")
def _(lab):
    style = lab.masker(label_style="albert_zh").label_style
    assert (style, lab.masker().label_style) == ("albert_zh", "plain")


@EFFECTS.proves("jit_compile")
def _(lab):
    given = {}

    def function(python=None, **more):
        if python is None:  # a decorator with settings
            return lambda python: function(python, **more)
        given[python.__name__] = more.get("jit_compile")
        return python

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tf, "function", function)
        lab.run(jit_compile=True)
    del given["_apply"]  # the update is compiled anyway
    assert True in given.values()


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


@EFFECTS.proves("steps_per_loop")
def _(lab):
    calls = lab.looped(train_steps=7, steps_per_loop=4).calls
    assert calls == [(0, 4), (4, 3)]


@EFFECTS.proves("log_every")
def _(lab):
    assert lab.logged(train_steps=6, log_every=2) == 3


@EFFECTS.proves("checkpoint_every")
def _(lab):
    run = lab.looped(train_steps=6, checkpoint_every=2)
    assert run.loop.snapshots.steps == [2, 4, 6]


@EFFECTS.proves("keep_checkpoints")
def _(lab):
    run = lab.looped(train_steps=6, checkpoint_every=2, keep_checkpoints=2)
    assert run.loop.snapshots.steps == [4, 6]


@EFFECTS.proves("eval_every")
def _(lab):
    assert lab.looped(train_steps=6, eval_every=4).evaluated == [0, 4, 6]


@EFFECTS.proves("on_divergence")
def _(lab):
    def once(calls):
        return float("nan") if len(calls) == 2 else 1.0

    steps = {"train_steps": 6, "steps_per_loop": 2, "checkpoint_every": 2}
    with pytest.raises(guard.Diverged):
        lab.looped(once, **steps)
    run = lab.looped(once, on_divergence="rollback", **steps)
    assert float(run.schedule.scale) == 0.5
