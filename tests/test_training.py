"""Runs: exact resume, damage, preemption, evaluation, guard, warm start."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from lamb import HAS_LAMB, OPTIMIZER
from small_records import classic, write_set

from albert_tf2 import AlbertConfig, load_pretrained
from albert_tf2.errors import Preempted, UserError
from albert_tf2.model import flops
from albert_tf2.pretraining import budget
from albert_tf2.pretraining import run as pretraining_run
from albert_tf2.pretraining.recipe_parts import check_shares, predictions_of
from albert_tf2.pretraining.run import Run, evaluate, train_and_evaluate
from albert_tf2.recipes import PretrainRecipe
from albert_tf2.records.record_set import open_records
from albert_tf2.training import guard, optimization
from albert_tf2.training.run_log import read_rows

pytestmark = pytest.mark.usefixtures("warm_python")

MODEL = {
    "vocab_size": 200,
    "embedding_size": 8,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
}


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    write_set(folder, [9, 8, 8], held_out=7)
    return folder


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "albert_config.json"
    AlbertConfig(**MODEL).to_json(path)
    return str(path)


def recipe(model_file, **changes):
    settings = {
        "model": model_file,
        "optimizer": OPTIMIZER,
        "train_steps": 12,
        "global_batch_size": 4,
        "max_seq_length": 32,
        "max_predictions_per_seq": 4,
        "learning_rate": 0.01,
        "warmup_steps": 3,
        "steps_per_loop": 2,
        "log_every": 2,
        "checkpoint_every": 5,
        "eval_every": 6,
        "shuffle_buffer": 16,
        "seed": 7,
    }
    return PretrainRecipe(**(settings | changes))


def train(a_recipe, records, workdir, **options):
    return train_and_evaluate(
        a_recipe, records, workdir, "one_device", progress=False, **options
    )


def losses(workdir):
    return [
        (row["step"], row["loss"], row["sop_accuracy"], row["gradient_norm"])
        for row in read_rows(workdir / "metrics.jsonl")
    ]


def values(prefix):
    """Everything in a checkpoint but the graph of its objects."""
    reader = tf.train.load_checkpoint(prefix)
    return {
        name: reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        if "OBJECT_GRAPH" not in name and "save_counter" not in name
    }


def same_runs(workdir, other):
    assert losses(workdir) == losses(other)
    evaluations = [
        read_rows(folder / "evaluation.jsonl") for folder in (workdir, other)
    ]
    assert evaluations[0] == evaluations[1]
    newest = [
        tf.train.latest_checkpoint(str(folder / "checkpoints"))
        for folder in (workdir, other)
    ]
    first, second = map(values, newest)
    assert set(first) == set(second)
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], name)


@pytest.fixture(scope="module")
def whole_run(records, model_file, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    result = train(recipe(model_file), records, workdir)
    assert result.step == 12
    return workdir, result


def test_a_run_leaves_what_others_read(whole_run, records):
    workdir, result = whole_run
    rows = read_rows(workdir / "metrics.jsonl")
    assert [row["step"] for row in rows] == [2, 4, 6, 8, 10, 12]
    assert {"loss", "mlm_loss", "sop_loss", "learning_rate"} <= set(rows[0])
    assert {"tokens_per_second", "examples_per_second"} <= set(rows[-1])
    assert 0 < rows[-1]["share_of_measured_peak"] < 1
    # What is done: the last layer where heads look, at P + pairs positions.
    record_set = open_records(str(records))
    count = predictions_of(
        PretrainRecipe(max_predictions_per_seq=4), record_set
    )
    per_row = flops.training_flops(
        AlbertConfig(**MODEL), 32, count, count + record_set.max_pairs
    )
    done = rows[-1]["flops_per_second"] / rows[-1]["steps_per_second"]
    assert done == pytest.approx(4 * per_row)
    evaluated = read_rows(workdir / "evaluation.jsonl")
    assert [row["step"] for row in evaluated] == [0, 6, 12]
    assert result.first == evaluated[0] and result.last == evaluated[-1]
    assert result.last["examples"] == sum_of_pairs(workdir)
    model = load_pretrained(workdir)
    assert model.config == AlbertConfig(**MODEL)
    saved = values(result.checkpoint)
    key = "model/encoder/embeddings/word_embeddings/.ATTRIBUTES/VARIABLE_VALUE"
    np.testing.assert_array_equal(
        model.encoder.embeddings.word_embeddings, saved[key]
    )
    events = list((workdir / "tensorboard").iterdir())
    tags = {
        value.tag
        for event in tf.compat.v1.train.summary_iterator(str(events[0]))
        for value in event.summary.value
    }
    assert {"train/loss", "eval/mlm_accuracy", "train/learning_rate"} <= tags
    ratios = [tag.startswith("train/trust_ratio/encoder") for tag in tags]
    assert any(ratios) == HAS_LAMB


def sum_of_pairs(workdir):
    row = read_rows(workdir / "evaluation.jsonl")[0]
    assert 7 <= row["examples"] <= 21  # seven records of one to three pairs
    return row["examples"]


def test_untrained_losses_are_those_of_guessing(whole_run):
    _, result = whole_run
    assert result.first["mlm_loss"] == pytest.approx(np.log(200), abs=0.1)
    assert result.first["sop_loss"] == pytest.approx(np.log(2), abs=0.05)
    assert 4 < result.first["unigram_loss"] < 6


class AfterSteps:
    """Stands for SIGTERM, which comes once a run has made some steps."""

    def __init__(self, run, stop):
        self.run, self.stop = run, stop

    def __bool__(self):
        return int(self.run.loop.step) >= self.stop


def interrupted(a_recipe, records, workdir, stop):
    """Makes some steps, and is stopped by SIGTERM."""
    run = Run(a_recipe, records, workdir, "one_device")
    run.start(None)
    with pytest.raises(Preempted):
        run.train(AfterSteps(run, stop))
    assert run.loop.snapshots.steps[-1] == int(run.loop.step) >= stop


def test_steps_and_restarts_equal_steps(
    whole_run, records, model_file, tmp_path
):
    """SIGTERM after some steps, then the same again: bit for bit."""
    a_recipe = recipe(model_file)
    # When a checkpoint and when an evaluation is due; others: test_loop.
    interrupted(a_recipe, records, tmp_path, 5)
    interrupted(a_recipe, records, tmp_path, 6)
    assert train(a_recipe, records, tmp_path).step == 12
    same_runs(tmp_path, whole_run[0])


def test_a_budget_makes_the_run_of_the_steps_it_finds(
    whole_run, records, model_file, tmp_path, capsys, monkeypatch
):
    """What was measured leaves no trace; what was found is kept."""
    monkeypatch.setattr(budget.Costs, "steps_within", lambda *_: 12)
    asked = recipe(model_file, budget="9s", train_steps=48, warmup_steps=12)
    assert train(asked, records, tmp_path).step == 12
    same_runs(tmp_path, whole_run[0])
    assert "so 12 steps" in capsys.readouterr().out
    kept = json.loads((tmp_path / "recipe.json").read_text())
    assert (kept["train_steps"], kept["warmup_steps"]) == (12, 3)
    monkeypatch.setattr(budget, "measure", None)
    assert train(asked, records, tmp_path).step == 12


DROPOUT = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.2}


@pytest.mark.parametrize(
    "changes",
    [
        DROPOUT | {"gradient_accumulation_steps": 2},
        DROPOUT | {"precision": "mixed_float16", "optimizer": "adamw"},
    ],
    ids=["parts, lamb", "float16, adamw"],
)
def test_two_steps_and_a_restart_equal_four_with_dropout(
    records, model_file, tmp_path, changes
):
    short = {"train_steps": 4, "steps_per_loop": 1, "log_every": 1}
    a_recipe = recipe(model_file, **(short | changes))
    interrupted(a_recipe, records, tmp_path / "cut", 2)
    train(a_recipe, records, tmp_path / "cut")
    train(a_recipe, records, tmp_path / "whole")
    same_runs(tmp_path / "cut", tmp_path / "whole")
    assert len(losses(tmp_path / "cut")) == 4


def command(model_file, records, workdir, **changes):
    settings = {
        key: value
        for key, value in vars(recipe(model_file, **changes)).items()
        if value is not None
    }
    return [
        *(sys.executable, "-m", "albert_tf2.pretrain"),
        *("--strategy", "one_device"),
        *("--data_dir", str(records), "--workdir", str(workdir)),
        *(f"--set={key}={value}" for key, value in settings.items()),
    ]


def test_killed_at_random_a_run_goes_on_bit_for_bit(
    records, model_file, tmp_path, warm_python
):
    """SIGKILL while it steps, logs or saves; the same command each time."""
    rng = random.Random(os.getpid())
    changes = {
        "train_steps": 150,
        "log_every": 7,
        "checkpoint_every": 11,
        "eval_every": 90,
    }
    arguments = command(model_file, records, tmp_path / "killed", **changes)
    rows_file = tmp_path / "killed" / "metrics.jsonl"
    kills = 0
    for rows_wanted in (rng.randint(1, 8), rng.randint(10, 15)):
        process = subprocess.Popen(
            arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.time() + 120
        while process.poll() is None and time.time() < deadline:
            if len(read_rows(rows_file)) >= rows_wanted:
                break
            time.sleep(0.005)
        time.sleep(rng.random() * 0.05)
        warm_python.kill(process)
        kills += process.wait() == -signal.SIGKILL
    assert kills, "the run was over before it could be killed"
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    whole = tmp_path / "whole"
    train(recipe(model_file, **changes), records, whole)
    same_runs(tmp_path / "killed", whole)


def test_sigterm_saves_and_asks_to_be_run_again(records, model_file, tmp_path):
    changes = {"train_steps": 100_000, "checkpoint_every": 100_000}
    process = subprocess.Popen(
        command(model_file, records, tmp_path, **changes),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    deadline = time.time() + 120
    while time.time() < deadline and process.poll() is None:
        if len(read_rows(tmp_path / "metrics.jsonl")) >= 2:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 75
    assert "SIGTERM: saved" in output
    newest = tf.train.latest_checkpoint(str(tmp_path / "checkpoints"))
    step = int(newest.rsplit("-", 1)[1])
    assert step > 0
    assert values(newest)["step/.ATTRIBUTES/VARIABLE_VALUE"] == step


def test_a_damaged_newest_checkpoint_falls_back(
    whole_run, records, model_file, tmp_path, capsys
):
    shutil.copytree(whole_run[0], tmp_path, dirs_exist_ok=True)
    newest = tf.train.latest_checkpoint(str(tmp_path / "checkpoints"))
    data = (
        tmp_path
        / "checkpoints"
        / (newest.rsplit("/", 1)[1] + ".data-00000-of-00001")
    )
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 0xFF  # one flipped byte
    data.write_bytes(content)
    result = train(recipe(model_file), records, tmp_path)
    printed = capsys.readouterr().out
    assert "ckpt-12 is damaged" in printed and "ckpt-10 at step 10" in printed
    assert result.step == 12
    same_runs(tmp_path, whole_run[0])


def test_a_cut_off_checkpoint_falls_back_or_is_named(
    whole_run, records, model_file, tmp_path, capsys
):
    shutil.copytree(whole_run[0], tmp_path, dirs_exist_ok=True)
    for data in (tmp_path / "checkpoints").glob("*.data-*"):
        data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(UserError, match="none of 3 checkpoints"):
        train(recipe(model_file), records, tmp_path)
    assert capsys.readouterr().out.count("is damaged") == 3


def test_a_full_disk_leaves_the_last_good_checkpoint(
    whole_run, records, model_file, tmp_path, monkeypatch
):
    a_recipe = recipe(model_file)
    run = Run(a_recipe, records, tmp_path, "one_device")
    run.start(None)
    write = run.loop.snapshots.checkpoint.write

    def full(prefix):
        if prefix.endswith("-10"):
            leftover = tmp_path / "checkpoints" / "ckpt-10.data-00000-of-00001"
            leftover.write_bytes(b"half")
            raise tf.errors.ResourceExhaustedError(
                None, None, "No space left on device"
            )
        return write(prefix)

    monkeypatch.setattr(run.loop.snapshots.checkpoint, "write", full)
    with pytest.raises(UserError, match="last good checkpoint is .*ckpt-5"):
        run.train()
    assert not list((tmp_path / "checkpoints").glob("ckpt-10*"))
    train(a_recipe, records, tmp_path)
    same_runs(tmp_path, whole_run[0])


def test_evaluation_alone_repeats_the_last_figures(whole_run, records):
    workdir, result = whole_run
    assert evaluate(workdir, records, "one_device") == result.last


def test_evaluation_does_not_depend_on_its_batch(
    whole_run, records, model_file, tmp_path
):
    result = train(
        recipe(model_file, train_steps=1, global_batch_size=3),
        records,
        tmp_path,
    )
    for name, value in whole_run[1].first.items():
        assert result.first[name] == pytest.approx(value, abs=2e-5), name


def test_accumulated_parts_equal_the_whole_batch(records, model_file, tmp_path):
    weights = []
    for parts in (1, 4):
        result = train(
            recipe(
                model_file,
                global_batch_size=8,
                gradient_accumulation_steps=parts,
            ),
            records,
            tmp_path / str(parts),
        )
        weights.append(values(result.checkpoint))
    rows = [losses(tmp_path / name) for name in ("1", "4")]
    np.testing.assert_allclose(*rows, rtol=2e-4)
    for name, value in weights[0].items():
        if "key/bias" not in name:  # its gradient is rounding alone
            np.testing.assert_allclose(
                value, weights[1][name], atol=2e-4, err_msg=name
            )


def test_compiled_steps_equal_plain_ones(
    whole_run, records, model_file, tmp_path
):
    train(recipe(model_file, jit_compile=True), records, tmp_path)
    np.testing.assert_allclose(
        losses(tmp_path), losses(whole_run[0]), rtol=2e-3
    )


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_learns_about_the_same(
    whole_run, records, model_file, tmp_path, precision
):
    result = train(recipe(model_file, precision=precision), records, tmp_path)
    found, expected = losses(tmp_path), losses(whole_run[0])
    np.testing.assert_allclose(
        [row[1] for row in found], [row[1] for row in expected], rtol=0.05
    )
    saved = values(result.checkpoint)
    assert all(v.dtype != np.float16 for v in saved.values())


def test_classic_records_train_too(model_file, tmp_path):
    write_set(tmp_path / "records", [9, 8], kind=classic)
    result = train(
        recipe(model_file, train_steps=3),
        tmp_path / "records",
        tmp_path / "run",
    )
    assert result.step == 3 and np.isfinite(result.last["loss"])


def test_records_of_other_programs_resume_bit_for_bit(model_file, tmp_path):
    """They have no manifest, and are read in blocks."""
    records = tmp_path / "records"
    write_set(records, [70, 3], kind=classic)
    (records / "manifest.json").unlink()
    a_recipe = recipe(model_file, train_steps=6, shuffle_buffer=40)
    train(a_recipe, records, tmp_path / "whole")
    interrupted(a_recipe, records, tmp_path / "run", 3)
    assert train(a_recipe, records, tmp_path / "run").step == 6
    same_runs(tmp_path / "run", tmp_path / "whole")


def test_warm_start_takes_weights_and_nothing_else(
    whole_run, records, model_file, tmp_path
):
    result = train(
        recipe(model_file, train_steps=1, learning_rate=1e-9),
        records,
        tmp_path,
        init_checkpoint=whole_run[0],
    )
    assert result.step == 1
    for name in ("loss", "mlm_loss", "sop_accuracy"):
        assert result.first[name] == pytest.approx(whole_run[1].last[name])
    other = AlbertConfig(**(MODEL | {"hidden_size": 32})).to_json
    other(tmp_path / "other.json")
    with pytest.raises(UserError, match="does not fit"):
        train(
            recipe(str(tmp_path / "other.json")),
            records,
            tmp_path / "other",
            init_checkpoint=whole_run[0],
        )


def test_another_model_in_the_same_folder_is_refused(
    whole_run, records, tmp_path
):
    AlbertConfig(**(MODEL | {"num_hidden_layers": 3})).to_json(
        tmp_path / "other.json"
    )
    with pytest.raises(UserError, match="run of another model"):
        train(recipe(str(tmp_path / "other.json")), records, whole_run[0])


def test_divergence_names_steps_and_can_roll_back(
    records, model_file, tmp_path, capsys
):
    run = Run(
        recipe(model_file, on_divergence="rollback"),
        records,
        tmp_path,
        "one_device",
    )
    run.start(None)
    check = guard.Guard.check
    broken = []

    def once(self, step, step_losses, norms):
        if step == 8 and not broken:
            broken.append(step)
            step_losses = [*step_losses[:-1], float("nan")]
        check(self, step, step_losses, norms)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guard.Guard, "check", once)
        result = run.train()
    assert result.step == 12
    printed = capsys.readouterr().out
    assert "nan at step 10" in printed and "back to step 5" in printed
    assert float(run.schedule.scale) == 0.5
    rows = read_rows(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == [2, 4, 6, 8, 10, 12]
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 6  # each step once in the file, too


def test_divergence_stops_by_default(records, model_file, tmp_path):
    with pytest.raises(UserError, match="lower `learning_rate`"):
        train(
            recipe(
                model_file,
                learning_rate=1e9,
                optimizer="adamw",
                train_steps=60,
                warmup_steps=0,
            ),
            records,
            tmp_path,
        )


def test_guard_sees_explosions_and_not_noise():
    # Half again the best, and one more: of small losses that is much.
    guard.Guard().check(0, [0.1] * 20 + [0.5] * 20)
    watch = guard.Guard()
    rng = random.Random(0)
    watch.check(0, [5 + rng.uniform(-2, 2) for _ in range(200)])
    with pytest.raises(guard.Diverged, match="exploded.*by step 2"):
        watch.check(200, [14.0] * 20)
    with pytest.raises(guard.Diverged, match="loss became inf at step 3"):
        guard.Guard().check(0, [1.0, 1.0, float("inf")])
    with pytest.raises(guard.Diverged, match="norm became nan at step 8"):
        guard.Guard().check(6, [1.0, 1.0, 1.0], [1.0, float("nan"), 1.0])


def test_remarks_say_what_is_not_learned():
    learned = {
        "sop_accuracy": 0.7,
        "examples": 1000.0,
        "mlm_loss": 4.0,
        "unigram_loss": 6.0,
    }
    assert guard.remarks(learned) == []
    (remark,) = guard.remarks(learned | {"sop_accuracy": 0.51})
    assert "SOP is at chance" in remark
    assert guard.remarks(learned | {"sop_accuracy": 0.51, "examples": 9}) == []
    (remark,) = guard.remarks(learned | {"mlm_loss": 6.5})
    assert "MLM is below the unigram baseline" in remark


def test_a_start_tells_its_epochs_and_logs_its_own_ratios(
    records, model_file, tmp_path, capsys, monkeypatch
):
    settings = {"weight_decay": 0.4, "bias_correction": False}
    run = Run(recipe(model_file, **settings), records, tmp_path, "one_device")
    run.start(None)
    # 12 steps of 4 of the 25 records.
    assert "12 steps are 1.9 epoch(s)" in capsys.readouterr().out
    asked = {}

    def ratios(optimizer, variables, **settings):
        asked.update(settings)
        return {"kernel": tf.constant(2.0)}

    monkeypatch.setattr(optimization, "trust_ratios", ratios)
    row = {"step": 2, "loss": 1.0, "tokens": 10.0, "examples": 4.0}
    logged, scalars = run.logged(row, 3.0)
    assert asked == settings and scalars == {"trust_ratio/kernel": 2.0}
    assert logged["tokens_per_second"] == 30 and "tokens" not in logged
    assert run.logged(row, None)[0] == {"step": 2, "loss": 1.0}


def test_a_recipes_settings_reach_the_step(
    records, model_file, tmp_path, monkeypatch
):
    settings = {"clip_norm": 0.3, "jit_compile": True, "seed": 11}
    changes = settings | {
        "gradient_accumulation_steps": 2,
        "gradient_checkpointing": True,
    }
    given = {}
    monkeypatch.setattr(
        pretraining_run, "PretrainStep", lambda *_, **more: given.update(more)
    )
    Run(recipe(model_file, **changes), records, tmp_path, "one_device")
    assert given == settings | {
        "accumulation_steps": 2,
        "recompute": True,
        "depth": MODEL["num_hidden_layers"],
    }


def test_a_batch_that_cannot_be_shared_is_told_first(model_file):
    parts = recipe(
        model_file, global_batch_size=8, gradient_accumulation_steps=4
    )
    check_shares(parts, 2)
    with pytest.raises(UserError, match="replicas, 4, times.*_steps=4"):
        check_shares(parts, 4)


def test_mistakes_are_told_before_training(records, model_file, tmp_path):
    cases = {
        "vocab_size_from_data": recipe("albert_tiny_zh"),
        "max_seq_length 16": recipe(model_file, max_seq_length=16),
    }
    for message, a_recipe in cases.items():
        with pytest.raises(UserError, match=message):
            train(a_recipe, records, tmp_path / "run")
    with pytest.raises(UserError, match="divisible"):
        recipe(model_file, global_batch_size=5, gradient_accumulation_steps=2)
    with pytest.raises(UserError, match="recipe.json"):
        evaluate(tmp_path, records)
    assert json.loads((records / "manifest.json").read_text())
