"""Teachers: folders and files, labels by name, and what is refused."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import task_samples as samples
import tensorflow as tf

from albert_tf2 import finetune
from albert_tf2.errors import UserError
from albert_tf2.finetuning import encoders, feeding, teacher
from albert_tf2.finetuning import run as finetuning_run
from albert_tf2.recipes import FinetuneRecipe
from albert_tf2.tasks import base, registry
from albert_tf2.tasks.encoding import Example, Packed
from albert_tf2.text.tokenization import Tokenizer

DEVICE = tf.distribute.OneDeviceStrategy("/cpu:0")
NAMES = ("lcqmc", "cluener", "cmrc2018", "c3", "multi_label", "regression")


def rows_of(name, folder, **given):
    task = registry.create(name, **given)
    folder.mkdir(parents=True, exist_ok=True)
    recipe = FinetuneRecipe(max_seq_length=32, max_query_length=8)
    files = samples.TASK_FILES[name](folder)
    data = finetune.read_data(task, files, recipe, say=len)
    return task, data.train


def saved(task, checkpoint, folder, **lengths):
    """Writes an untrained model of a task: it answers, however badly."""
    with DEVICE.scope():
        loaded = encoders.load_encoder(str(checkpoint))
        model = encoders.build(task, loaded, seed=len(str(folder)))
        one = {
            name: tf.ones(
                [1, *([task.choices] * (task.choices > 1)), 8], tf.int32
            )
            for name in ("input_word_ids", "input_mask", "input_type_ids")
        }
        model(one)
    encoders.save(
        folder / "model",
        model=model,
        task=task,
        loaded=loaded,
        lengths=base.Lengths(
            **{"max_seq_length": 32, "max_query_length": 8} | lengths
        ),
    )
    return folder


def opened(source, task, rows, checkpoint):
    return teacher.open_teacher(
        str(source),
        task=task,
        tokenizer=Tokenizer(checkpoint),
        rows=len(rows),
        batch_size=4,
        strategy=DEVICE,
        say=len,
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_answers_each_example(name, tmp_path, checkpoint):
    """As its own model does, one by one."""
    task, rows = rows_of(name, tmp_path / "data")
    folder = saved(task, checkpoint, tmp_path / "run")
    tokenizer = Tokenizer(checkpoint)
    lengths = base.Lengths(max_seq_length=32, max_query_length=8)
    examples = task.encode(rows, tokenizer, lengths, training=True)
    found = opened(folder, task, rows, checkpoint).logits(rows, examples)
    _, model, *_ = encoders.load(folder / "model")
    step = feeding.make_predict_step(model, DEVICE)
    for example, values in zip(examples, found, strict=True):
        (alone,) = feeding.predict_logits(
            step, [example], task=task, batch_size=1
        )
        np.testing.assert_allclose(values, alone, atol=1e-5)
    n = task.choices if task.kind == base.CHOICE else task.num_outputs
    assert {values.shape[-1] for values in found} == {n}


def test_labels_are_known_by_name(tmp_path, checkpoint):
    """In another order they are put right; other ones are refused."""
    folder = tmp_path / "data"
    rows = [f"{a}\t{label}\n" for a, _, label in samples.PAIRS]
    folder.mkdir()
    (folder / "train.tsv").write_text("".join(rows), "utf-8")
    tasks = [
        registry.create("classification", labels=labels)
        for labels in (("0", "1"), ("1", "0"), ("0", "2"))
    ]
    for task in tasks[:2]:
        data = finetune.read_data(task, folder, FinetuneRecipe(), say=len)
    examples = tasks[0].encode(
        data.train, Tokenizer(checkpoint), base.Lengths()
    )
    source = saved(tasks[0], checkpoint, tmp_path / "run")
    same, other = (
        opened(source, task, data.train, checkpoint).logits(
            data.train, examples
        )
        for task in tasks[:2]
    )
    assert any(a[0] != a[1] for a in same)
    np.testing.assert_array_equal(np.array(same)[:, ::-1], other)
    with pytest.raises(UserError, match="the teacher has '1', which the task"):
        opened(source, tasks[2], data.train, checkpoint)


def test_a_scores_teacher_may_have_another_scale(tmp_path, checkpoint):
    task, rows = rows_of("regression", tmp_path / "data")
    source = saved(task, checkpoint, tmp_path / "run")
    examples = task.encode(rows, Tokenizer(checkpoint), base.Lengths())
    (same, *_) = opened(source, task, rows, checkpoint).logits(rows, examples)
    score = float(same[0]) * task.spread + task.mean
    task.mean, task.spread = 40.0, 7.0
    (other, *_) = opened(source, task, rows, checkpoint).logits(rows, examples)
    assert float(other[0]) * 7 + 40 == pytest.approx(score, rel=1e-5)
    np.save(tmp_path / "scores.npy", np.arange(len(rows)))
    read = opened(tmp_path / "scores.npy", task, rows, checkpoint)
    assert float(read.logits(rows, examples)[3][0]) == pytest.approx(-37 / 7)


def test_a_teacher_of_another_kind_or_other_tokens(tmp_path, checkpoint):
    lcqmc, rows = rows_of("lcqmc", tmp_path / "a")
    cluener, sentences = rows_of("cluener", tmp_path / "b")
    source = saved(cluener, checkpoint, tmp_path / "run")
    with pytest.raises(UserError, match="tuned for tagging, and task lcqmc is"):
        opened(source, lcqmc, rows, checkpoint)
    other = tmp_path / "other.txt"
    lines = (checkpoint / "vocab.txt").read_text("utf-8").splitlines()
    other.write_text("".join(f"{t}\n" for t in [*lines, "鑫"]), "utf-8")
    with pytest.raises(UserError, match="reads other tokens"):
        teacher.open_teacher(
            str(source),
            task=cluener,
            tokenizer=Tokenizer(other),
            rows=len(sentences),
            batch_size=4,
            strategy=DEVICE,
        )
    c3, questions = rows_of("c3", tmp_path / "c")
    chid = registry.create("chid")
    source = saved(c3, checkpoint, tmp_path / "c3")
    with pytest.raises(UserError, match="chooses among 4, and task chid among"):
        opened(source, chid, questions, checkpoint)


# --- files


def test_files_of_logits(tmp_path, checkpoint):
    task, rows = rows_of("lcqmc", tmp_path / "data")
    examples = task.encode(rows, Tokenizer(checkpoint), base.Lengths())
    logits = np.random.default_rng(0).normal(size=[len(rows), 2])
    np.save(tmp_path / "a.npy", logits.astype(np.float32))
    lines = [json.dumps(row) for row in logits.tolist()]
    lines[3] = json.dumps({"id": 3, "logits": logits[3].tolist()})
    (tmp_path / "a.jsonl").write_text("\n".join(lines), "utf-8")
    for name in ("a.npy", "a.jsonl"):
        found = opened(tmp_path / name, task, rows, checkpoint)
        turned = examples[::-1]
        np.testing.assert_allclose(
            found.logits(rows, turned), logits[::-1], rtol=1e-6
        )


@pytest.mark.parametrize(
    "name, content, reason",
    [
        ("x.npy", np.zeros([7, 2]), "has logits of 7 rows, and 8 rows are"),
        ("x.npy", np.zeros([8, 3]), "row 1: needs 2 number(s), for the labels"),
        ("x.npy", np.full([8, 2], np.nan), "must be finite numbers"),
        ("x.npy", np.array(["a", "b"]), "not an array of numbers"),
        ("x.npy", b"\x93NUMPY and more", "not an array of numbers"),
        ("x.npy", b"", "not an array of numbers"),
        ("x.jsonl", b"[1, 2]\n[1, NaN]\n", "line 2"),
        ("x.jsonl", b"[1, 2]\n\n[1, true]\n", "line 3: must be a list of"),
        ("x.jsonl", b'{"logit": [1, 2]}\n', "line 1: must be a list of"),
        ("x.jsonl", b"[1, 2\n", "line 1: not valid JSON"),
        ("x.jsonl", b"[1, 2]\n" * 7 + b"[1]\n", "row 8: needs 2 number(s)"),
    ],
)
def test_bad_files_are_refused(tmp_path, checkpoint, name, content, reason):
    task, rows = rows_of("lcqmc", tmp_path / "data")
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content)
    with pytest.raises(UserError) as error:
        opened(path, task, rows, checkpoint)
    assert reason in str(error.value) and name in str(error.value)


def test_files_of_choices_have_one_for_each(tmp_path, checkpoint):
    task, rows = rows_of("c3", tmp_path / "data")
    lengths = base.Lengths(max_seq_length=32)
    examples = task.encode(rows, Tokenizer(checkpoint), lengths)
    path = tmp_path / "x.jsonl"
    lines = [json.dumps([0.5] * len(row.choices)) for row in rows]
    path.write_text("\n".join(lines), "utf-8")
    found = opened(path, task, rows, checkpoint).logits(rows, examples)
    assert [len(values) for values in found] == [len(r.choices) for r in rows]
    path.write_text("[1, 2]\n" * len(rows), "utf-8")
    with pytest.raises(UserError, match=r"row 2: needs 3 number\(s\), for the"):
        opened(path, task, rows, checkpoint).logits(rows, examples)


def test_token_by_token_a_file_cannot_tell(tmp_path, checkpoint):
    task, rows = rows_of("cluener", tmp_path / "data")
    np.save(tmp_path / "x.npy", np.zeros([len(rows), 21]))
    with pytest.raises(UserError, match="which a file of logits cannot tell"):
        opened(tmp_path / "x.npy", task, rows, checkpoint)


def test_agreement_shows_logits_in_another_order():
    packed = (Packed([2, 3], [0, 0]),)
    examples = [Example(i, packed, label) for i, label in enumerate([0, 1, 1])]
    logits = [np.array(x) for x in ([2, 1], [0, 1], [1, 0])]
    said = teacher.agreement(base.CLASSIFICATION, examples, logits)
    assert "0.6667 of the training rows" in said
    assert teacher.agreement(base.REGRESSION, examples, logits) is None


# --- in a run

RECIPE = dict(
    max_seq_length=32,
    global_batch_size=4,
    learning_rate=3e-3,
    max_train_steps=3,
    eval_every=1000,
    checkpoint_every=2,
    log_every=1,
)


def run(folder, checkpoint, workdir, said=None, **changes):
    recipe = FinetuneRecipe(**(RECIPE | changes))
    task = registry.create("lcqmc")
    return finetune.fine_tune(
        task,
        finetune.read_data(task, folder, recipe, say=len),
        init_checkpoint=str(checkpoint),
        recipe=recipe,
        workdir=workdir,
        say=(said if said is not None else []).append,
    )


def weights_of(workdir):
    _, model, *_ = encoders.load(workdir / "model")
    return model.get_weights()


def test_a_run_learns_from_its_teacher_and_goes_on_with_it(
    tmp_path, checkpoint, monkeypatch
):
    """It may have moved; another one, or none, is refused."""
    folder = samples.write_lcqmc(tmp_path / "data")
    task, rows = rows_of("lcqmc", tmp_path / "data")
    first = saved(task, checkpoint, tmp_path / "teacher")
    said = []
    run(folder, checkpoint, tmp_path / "whole", said, teacher=str(first))
    assert any("answered as labelled" in line for line in said)
    whole = weights_of(tmp_path / "whole")
    # Cut after two steps, the teacher moved: the same bits.
    run_steps = finetuning_run.Run.run_steps

    def killed(self, batches, step, count):
        if step == 2:
            raise KeyboardInterrupt
        return run_steps(self, batches, step, count)

    with monkeypatch.context() as patch:
        patch.setattr(finetuning_run.Run, "run_steps", killed)
        with pytest.raises(KeyboardInterrupt):
            run(folder, checkpoint, tmp_path / "cut", teacher=str(first))
    moved = shutil.copytree(first, tmp_path / "moved")
    with pytest.raises(UserError, match="another `teacher`"):
        run(folder, checkpoint, tmp_path / "cut")
    np.save(tmp_path / "x.npy", np.zeros([len(rows), 2]))
    with pytest.raises(UserError, match="another `teacher`"):
        run(
            folder,
            checkpoint,
            tmp_path / "cut",
            teacher=str(tmp_path / "x.npy"),
        )
    run(folder, checkpoint, tmp_path / "cut", teacher=str(moved))
    for a, b in zip(weights_of(tmp_path / "cut"), whole, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_teacher_alone_makes_its_student_answer_alike(tmp_path, checkpoint):
    """With all of the loss: labels that are wrong do not count."""
    folder = samples.write_lcqmc(tmp_path / "data")
    wrong = [4.0 if label == "0" else -4.0 for *_, label in samples.PAIRS]
    np.save(tmp_path / "x.npy", [[-x, x] for x in wrong])
    results = run(
        folder,
        checkpoint,
        tmp_path / "run",
        teacher=str(tmp_path / "x.npy"),
        distillation_weight=1.0,
        classifier_dropout=0.0,
        max_train_steps=120,
        num_train_epochs=60,
        checkpoint_every=1000,
        log_every=100,
    )
    assert results["dev"]["accuracy"] < 0.2
    assert dataclasses.asdict(FinetuneRecipe())["teacher"] is None
