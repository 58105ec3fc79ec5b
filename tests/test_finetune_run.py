"""Runs of fine-tuning: resumed, stopped, damaged, judged, one of several."""

import dataclasses
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import types

import numpy as np
import pytest
import task_samples as samples
import tensorflow as tf

from albert_tf2 import finetune, paths
from albert_tf2.errors import Preempted, UserError
from albert_tf2.finetuning import encoders, regularizers, step, tuner
from albert_tf2.finetuning import model as tuned_model
from albert_tf2.finetuning import run as finetuning_run
from albert_tf2.finetuning.model import draws_own_dropout
from albert_tf2.keras_api import keras
from albert_tf2.recipes import FinetuneRecipe
from albert_tf2.tasks import registry
from albert_tf2.tasks.encoding import Example, Packed
from albert_tf2.training.run_log import read_rows

pytestmark = pytest.mark.usefixtures("warm_python")

RECIPE = dict(
    max_seq_length=32,
    global_batch_size=4,
    learning_rate=3e-3,
    max_train_steps=6,
    eval_every=1000,
    checkpoint_every=2,
    log_every=1,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return samples.write_lcqmc(tmp_path_factory.mktemp("lcqmc"))


def run(folder, checkpoint, workdir, *, seeds=False, said=None, **changes):
    recipe = FinetuneRecipe(**(RECIPE | changes))
    task = registry.create("lcqmc")
    said = [] if said is None else said
    data = finetune.read_data(task, folder, recipe, say=said.append)
    tune = finetune.fine_tune_seeds if seeds else finetune.fine_tune
    return tune(
        task,
        data,
        init_checkpoint=str(checkpoint),
        recipe=recipe,
        workdir=workdir,
        say=said.append,
    )


def weights_of(workdir):
    _, model, *_ = encoders.load(workdir / "model")
    return model.get_weights()


def same_runs(workdir, other):
    for a, b in zip(weights_of(workdir), weights_of(other), strict=True):
        np.testing.assert_array_equal(a, b)
    for name in ("metrics.jsonl", "evaluation.jsonl"):
        rows, others = (read_rows(place / name) for place in (workdir, other))
        for row in [*rows, *others]:
            row.pop("steps_per_second", None)
        assert rows == others and rows


DROPOUT = {
    "classifier_dropout": 0.1,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
}


# Settings for the last points, each off by default.
MORE = {
    "gradient_accumulation_steps": 2,
    "r_drop": 0.5,
}


@pytest.mark.parametrize(
    "changes",
    [
        {"classifier_dropout": 0.1},
        DROPOUT | {"optimizer": "lamb", "precision": "mixed_float16"},
        MORE,
    ],
    ids=["adamw", "dropout everywhere, lamb, float16", "all that is off"],
)
def test_a_stopped_run_equals_an_uninterrupted_one(
    folder, checkpoint, tmp_path, monkeypatch, changes
):
    """SIGTERM comes in the third step; four steps equal two and two."""
    if changes.get("optimizer") == "lamb":
        pytest.importorskip("official.modeling.optimization.lamb")
    changes = {"max_train_steps": 4, "checkpoint_every": 100} | changes
    run(folder, checkpoint, tmp_path / "whole", **changes)
    run_steps = finetuning_run.Run.run_steps

    def stopped(self, batches, step, count):
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return run_steps(self, batches, step, count)

    with monkeypatch.context() as patch:
        patch.setattr(finetuning_run.Run, "run_steps", stopped)
        with pytest.raises(Preempted):
            run(folder, checkpoint, tmp_path / "cut", **changes)
    assert not (tmp_path / "cut" / "results.json").exists()
    said = []
    run(folder, checkpoint, tmp_path / "cut", said=said, **changes)
    assert any("ckpt-3 at step 3" in line for line in said)
    same_runs(tmp_path / "cut", tmp_path / "whole")


def test_a_killed_run_with_a_damaged_checkpoint_goes_on(
    folder, checkpoint, tmp_path, monkeypatch
):
    """The newest is cut off and the list of them gone: the one before."""
    run(folder, checkpoint, tmp_path / "whole")
    run_steps = finetuning_run.Run.run_steps

    def killed(self, batches, step, count):
        if step == 4:
            raise KeyboardInterrupt
        return run_steps(self, batches, step, count)

    with monkeypatch.context() as patch:
        patch.setattr(finetuning_run.Run, "run_steps", killed)
        with pytest.raises(KeyboardInterrupt):
            run(folder, checkpoint, tmp_path / "cut")
    checkpoints = tmp_path / "cut" / "checkpoints"
    (newest,) = checkpoints.glob("ckpt-4.data-*")
    newest.write_bytes(newest.read_bytes()[:100])
    (checkpoints / "checkpoint").unlink()
    said = []
    run(folder, checkpoint, tmp_path / "cut", said=said)
    assert any("ckpt-4 is damaged" in line for line in said)
    assert any("ckpt-2 at step 2" in line for line in said)
    same_runs(tmp_path / "cut", tmp_path / "whole")


def test_sigterm_of_a_command_saves_and_asks_to_be_run_again(
    folder, checkpoint, tmp_path
):
    workdir = tmp_path / "run"
    arguments = [
        *(sys.executable, "-m", "albert_tf2.finetune", "--task", "lcqmc"),
        *("--data_dir", str(folder), "--init_checkpoint", str(checkpoint)),
        *("--workdir", str(workdir), "--strategy", "one_device"),
    ]
    settings = RECIPE | {"max_train_steps": 100_000, "num_train_epochs": 1e5}
    settings["checkpoint_every"] = 100_000
    process = subprocess.Popen(
        [*arguments, *(f"--set={key}={v}" for key, v in settings.items())],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.time() + 200
    while time.time() < deadline and process.poll() is None:
        if len(read_rows(workdir / "metrics.jsonl")) >= 2:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=200)
    assert process.returncode == 75, errors[-2000:]
    assert "SIGTERM: saved" in output and "Traceback" not in errors
    (saved,) = (workdir / "checkpoints").glob("ckpt-*.index")
    assert int(saved.stem.removeprefix("ckpt-")) >= 2


def test_a_loss_that_is_lost_stops_the_run(
    folder, checkpoint, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        tuned_model,
        "loss_sum",
        lambda kind, logits, labels, weights: logits[0, 0] * float("nan"),
    )
    with pytest.raises(UserError, match="nan at step 1.*lower `learning_rate`"):
        run(folder, checkpoint, tmp_path / "w")
    assert not (tmp_path / "w" / "model").exists()
    assert not list((tmp_path / "w").glob("checkpoints/*"))


@pytest.mark.parametrize(
    "changes, reason",
    [
        (
            {"r_drop": 1.0, "classifier_dropout": 0.0},
            "nothing is dropped here: set hidden_dropout_prob=0.1",
        ),
        (
            {"gradient_accumulation_steps": 3, "global_batch_size": 4},
            "must be divisible by `gradient_accumulation_steps`",
        ),
        ({"teacher": "nowhere"}, "teacher nowhere is neither the folder of"),
    ],
)
def test_settings_that_make_no_sense(
    folder, checkpoint, tmp_path, changes, reason
):
    with pytest.raises(UserError) as error:
        run(folder, checkpoint, tmp_path / "w", **changes)
    assert reason in str(error.value)
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    "changes",
    [{"r_drop": 1.0}, {"teacher": "x"}, {"gradient_accumulation_steps": 2}],
)
def test_what_is_not_for_sentence_vectors(changes):
    recipe = FinetuneRecipe(**changes)
    task = types.SimpleNamespace(kind="sentence_vectors", name="vectors")
    (name,) = changes
    with pytest.raises(UserError, match=f"`{name}` is not for task vectors"):
        regularizers.check(task, recipe, None)


class Strange(keras.layers.Layer):
    """Stands for a hub encoder: nothing is known of its layers."""

    def call(self, inputs, training=None):
        return {
            "pooled_output": tf.zeros([tf.shape(inputs["input_mask"])[0], 8])
        }


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"gradient_checkpointing": True}, "checkpointing` computes layers"),
    ],
)
def test_a_hub_encoder_is_not_looked_into(
    folder, checkpoint, tmp_path, changes, reason
):
    tokenizer = encoders.load_encoder(str(checkpoint)).tokenizer
    with pytest.raises(UserError) as error:
        tuner.Tuner(
            registry.create("lcqmc"),
            load_encoder=lambda: encoders.LoadedEncoder(
                Strange(), tokenizer, 64
            ),
            recipe=FinetuneRecipe(**(RECIPE | changes)),
            workdir=tmp_path,
            strategy=tf.distribute.OneDeviceStrategy("/cpu:0"),
        )
    assert reason in str(error.value)


def figures_at(monkeypatch, figures):
    """Replaces what evaluations find, in the order in which they come."""
    found = iter(figures)
    monkeypatch.setattr(
        tuner.Tuner, "evaluate", lambda self, rows: {"accuracy": next(found)}
    )


def test_the_best_model_predicts_in_the_end(
    folder, checkpoint, tmp_path, monkeypatch
):
    figures_at(monkeypatch, [0.5, 0.9, 0.7])
    predict, used = tuner.Tuner.predict, []

    def watched(self, rows):
        used.append(self.model.get_weights())
        return predict(self, rows)

    monkeypatch.setattr(tuner.Tuner, "predict", watched)
    results = run(folder, checkpoint, tmp_path, eval_every=2)
    assert (results["best_step"], results["steps"]) == (4, 6)
    best = weights_of(tmp_path)
    assert len(used) == 2  # dev and test
    for weights in used:
        for a, b in zip(weights, best, strict=True):
            np.testing.assert_array_equal(a, b)
    task = json.loads((tmp_path / "model" / "task.json").read_text())
    assert task["step"] == 4 and task["dev"] == {"accuracy": 0.9}


def test_early_stopping_at_figures_that_stay(
    folder, checkpoint, tmp_path, monkeypatch
):
    figures_at(monkeypatch, itertools.repeat(0.7))
    said = []
    results = run(
        folder,
        checkpoint,
        tmp_path,
        said=said,
        eval_every=2,
        max_train_steps=30,
        num_train_epochs=15,
        early_stopping_patience=3,
    )
    assert (results["best_step"], results["steps"]) == (2, 8)
    assert any("3 evaluations: stopped at step 8" in line for line in said)


def tuner_of(folder, checkpoint, workdir, **changes):
    return tuner.Tuner(
        registry.create("lcqmc"),
        load_encoder=lambda: encoders.load_encoder(str(checkpoint)),
        recipe=FinetuneRecipe(**(RECIPE | changes)),
        workdir=workdir,
        strategy=tf.distribute.OneDeviceStrategy("/cpu:0"),
        say=lambda line: None,
    )


def test_every_epoch_has_each_row_once_shuffled_and_sorted(
    folder, checkpoint, tmp_path
):
    """Batches hold rows of like lengths, in an order that is drawn."""
    made = tuner_of(folder, checkpoint, tmp_path)
    rng = np.random.default_rng(0)
    examples = [
        types.SimpleNamespace(row=row, length=int(rng.integers(5, 30)))
        for row in range(40)
    ]
    trained = finetuning_run.Run(made, examples, [], [])
    trained._batch = lambda part: part
    batches = list(itertools.islice(trained.batches(0), 30))
    epochs = [batches[first : first + 10] for first in (0, 10, 20)]
    orders = [[e.row for batch in epoch for e in batch] for epoch in epochs]
    for order in orders:
        assert sorted(order) == list(range(40))
    assert orders[0] != orders[1] != orders[2] != sorted(orders[2])
    # Rows meet others in every epoch, though lengths stay together.
    together = [{frozenset(e.row for e in b) for b in x} for x in epochs]
    assert together[0] != together[1] != together[2]
    spreads = [
        max(e.length for e in b) - min(e.length for e in b) for b in batches
    ]
    assert np.mean(spreads) < 4  # of 24
    for first in (1, 9, 10, 17):
        again = itertools.islice(trained.batches(first), 30 - first)
        assert list(again) == batches[first:]
    trained.recipe = dataclasses.replace(trained.recipe, seed=99)
    assert list(itertools.islice(trained.batches(0), 10)) != batches[:10]


@pytest.mark.parametrize(
    "changes, length, programs",
    [
        # Traced once for any length.
        ({}, 13, 1),
        # What XLA compiles for each length sees fewer of them.
        ({"max_train_steps": finetuning_run.FUSED_FROM_STEPS}, 14, 2),
        ({"jit_compile": True}, 16, 2),
    ],
    ids=["plain", "fused", "compiled"],
)
def test_rows_are_padded_to_what_their_step_needs(
    folder, checkpoint, tmp_path, monkeypatch, changes, length, programs
):
    monkeypatch.setattr(finetuning_run.fusion, "suits_devices", lambda: True)
    made = tuner_of(
        folder, checkpoint, tmp_path, num_train_epochs=9999, **changes
    )
    examples = [
        Example(row, (Packed([5] * n, [0] * n),), label=0)
        for row, n in enumerate([11, 13, 12, 13, 30, 29, 28, 30])
    ]
    trained = finetuning_run.Run(made, examples, [], [])
    short = trained._batch(examples[:4])
    assert short["input_word_ids"].shape == (4, length)
    assert short["input_mask"].sum(1).tolist() == [11, 13, 12, 13]
    trained._batch(examples[4:])
    assert trained.programs == programs


def test_a_step_is_traced_once_for_all_lengths(
    folder, checkpoint, tmp_path, monkeypatch
):
    made = tuner_of(folder, checkpoint, tmp_path, num_train_epochs=9999)
    lengths = (13, 11, 17, 30)
    examples = [
        Example(row, (Packed([5] * n, [0] * n),), label=row % 2)
        for row, n in enumerate(lengths)
    ]
    traced = []
    call = encoders.TaskModel.call

    def counted(self, inputs, training=None):
        traced.append(inputs["input_mask"].shape.as_list())
        return call(self, inputs, training=training)

    monkeypatch.setattr(encoders.TaskModel, "call", counted)
    trained = finetuning_run.Run(made, examples, [], [])
    batches = iter([trained._batch([example]) for example in examples])
    trained.run_steps(batches, 0, len(lengths))
    assert traced == [[None, None]]


def test_a_recipes_settings_reach_the_step(
    folder, checkpoint, tmp_path, monkeypatch
):
    settings = {"clip_norm": 0.3, "jit_compile": True, "seed": 11}
    settings |= {"r_drop": 0.7}
    made = tuner_of(
        folder,
        checkpoint,
        tmp_path,
        learning_rate=0.5,
        warmup_proportion=0.25,
        max_train_steps=8,
        num_train_epochs=100,
        gradient_accumulation_steps=2,
        gradient_checkpointing=True,
        distillation_temperature=3.0,
        distillation_weight=0.4,
        **settings,
    )
    given = {}
    monkeypatch.setattr(
        finetuning_run, "FinetuneStep", lambda *_, **more: given.update(more)
    )
    example = types.SimpleNamespace(row=0, length=5)
    trained = finetuning_run.Run(made, [example], [], [])
    assert given == settings | {
        "fuses": False,
        "accumulation_steps": 2,
        "recompute": True,
        "distillation_temperature": 3.0,
        "distillation_weight": 0.0,  # nobody teaches
    }
    finetuning_run.Run(made, [example], [], [], [np.zeros(2)])
    assert given["distillation_weight"] == 0.4
    # Warm-up and decay count from step 0: rate * step / 2, then the rest.
    rates = [float(trained.schedule(step)) for step in (1, 2, 4, 8)]
    np.testing.assert_allclose(rates, [0.25, 0.375, 0.25, 0.0])


@pytest.mark.parametrize("clip_norm", [0.01, 1e6])
def test_gradients_are_clipped(folder, checkpoint, tmp_path, clip_norm):
    made = tuner_of(folder, checkpoint, tmp_path)
    rows = finetune.read_data(made.task, folder, made.recipe, say=str).train
    examples = made.task.encode(rows, made.tokenizer, made.lengths)
    batch = next(finetuning_run.Run(made, examples, rows, []).batches(0))
    train_step = step.FinetuneStep(
        made.model, keras.optimizers.legacy.SGD(1.0), clip_norm=clip_norm
    )
    before = made.model.get_weights()
    _, norm = train_step({k: tf.constant(v) for k, v in batch.items()}).numpy()
    moved = np.sqrt(
        sum(
            np.square(after - start).sum()
            for after, start in zip(
                made.model.get_weights(), before, strict=True
            )
        )
    )
    assert norm > 0.02
    assert moved == pytest.approx(min(norm, clip_norm), rel=1e-3)


def test_several_seeds(folder, checkpoint, tmp_path):
    results = run(
        folder,
        checkpoint,
        tmp_path,
        seeds=True,
        max_train_steps=1,
        num_seeds=2,
    )
    a, b = results["dev"]["accuracy"]["values"]
    assert results["dev"]["accuracy"]["mean"] == pytest.approx((a + b) / 2)
    assert results["dev"]["accuracy"]["spread"] == pytest.approx(
        abs(a - b) / 2**0.5
    )
    assert (tmp_path / "model" / "task.json").is_file()
    assert "±" in finetune.summary(results)


@pytest.mark.parametrize(
    "figures, best",
    [
        ([0.2, 0.9, 0.5], 8),
        ([-0.3, -0.5, -0.1], 9),
        ([float("nan"), 0.1, 0.1], 8),
    ],
)
def test_the_best_seed_becomes_the_model(
    folder, checkpoint, tmp_path, monkeypatch, figures, best
):
    def fine_tune(task, data, *, recipe, workdir, **settings):
        paths.make_folder(paths.join(workdir, "model"))
        with paths.atomic_file(paths.join(workdir, "model/seed")) as stream:
            stream.write(str(recipe.seed))
        dev = {"accuracy": figures[recipe.seed - 7]}
        return {"seed": recipe.seed, "dev": dev}

    monkeypatch.setattr(finetune, "fine_tune", fine_tune)
    results = run(folder, checkpoint, tmp_path, seeds=True, seed=7, num_seeds=3)
    assert results["best_seed"] == best
    assert (tmp_path / "model" / "seed").read_text() == str(best)


def test_several_seeds_without_rows_to_judge_by(folder, checkpoint, tmp_path):
    (tmp_path / "data").mkdir()
    shutil.copy(folder / "train.txt", tmp_path / "data")
    said = []
    results = run(
        tmp_path / "data",
        checkpoint,
        tmp_path / "w",
        seeds=True,
        said=said,
        max_train_steps=1,
        num_seeds=2,
    )
    assert results["dev"] == results["test"] == {}
    assert results["best_seed"] == FinetuneRecipe().seed
    assert any("the first one is taken" in line for line in said)
    assert (tmp_path / "w" / "model" / "task.json").is_file()
    assert not (tmp_path / "w" / "predictions").exists()


def test_a_run_may_lie_where_tensorflow_writes(folder, checkpoint, tmp_path):
    """Also a bucket's: `ram://` stands for it."""
    workdir = f"ram://{tmp_path}/run"
    changes = {"max_train_steps": 2, "num_seeds": 2}
    results = run(folder, checkpoint, workdir, seeds=True, **changes)
    assert results["dev"]["accuracy"]["values"]
    assert paths.names(f"{workdir}/model") == [
        "albert_config.json",
        "model.data-00000-of-00001",
        "model.index",
        *("task.json", "text_settings.json", "vocab.txt"),
    ]
    assert paths.names(f"{workdir}/predictions") == ["dev.jsonl", "test.jsonl"]
    assert not list(tmp_path.iterdir())


def test_dev_rows_may_be_sampled_and_test_rows_never(folder):
    recipe = FinetuneRecipe(max_train_rows=3, max_eval_rows=2, seed=5)
    task = registry.create("lcqmc")
    data = finetune.read_data(task, folder, recipe, say=str)
    assert [len(data.train), len(data.dev), len(data.test)] == [3, 2, 8]


@pytest.mark.parametrize("draws", [False, True])
def test_a_hub_encoder_with_dropout_of_its_own_is_seen(tmp_path, draws):
    class Encoder(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None])])
        def __call__(self, inputs):
            inner = tf.function(lambda x: tf.nn.dropout(x, 0.1) if draws else x)
            return inner(inputs)

    tf.saved_model.save(Encoder(), str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    hub_layer = types.SimpleNamespace(resolved_object=loaded)
    assert draws_own_dropout(hub_layer) is draws
    assert not draws_own_dropout(keras.layers.Dropout(0.1))
