"""The whole way through a bucket: records, training, export, and back.

`ram://`, TensorFlow's file system in memory, stands for a bucket: it is served
by the same calls as `gs://`.
"""

import os
import random
import re
import signal
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from albert_tf2 import (
    AlbertPretrainer,
    UserError,
    convert,
    finetune,
    load_pretrained,
    paths,
    plot,
    predict,
    pretrain,
    save_pretrained,
)
from albert_tf2.data import build_pretraining_data
from albert_tf2.hub_export import export
from albert_tf2.text.tokenization import SPECIAL_TOKENS, Vocabulary
from albert_tf2.training import loop, run_log

pytestmark = pytest.mark.usefixtures("warm_python")

# `test_bucket` runs these tests on gs:// by this variable.
BUCKET = "ALBERT_TF2_TEST_BUCKET"


@pytest.fixture
def bucket():
    return f"{os.environ.get(BUCKET, 'ram://bucket')}-{os.urandom(4).hex()}"


@pytest.fixture
def model(tiny_config):
    return AlbertPretrainer(tiny_config)


def assert_same(model, again):
    for ours, theirs in zip(model.variables, again.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_models_go_to_a_bucket_and_come_back(model, bucket, tmp_path):
    vocabulary = Vocabulary(
        [*SPECIAL_TOKENS, *(chr(0x4E00 + i) for i in range(197))]
    )
    (tmp_path / "vocab.txt").write_bytes(vocabulary.to_bytes())
    folder = f"{bucket}/model"
    save_pretrained(model, folder, vocab_file=tmp_path / "vocab.txt")
    with pytest.raises(UserError, match=f"{folder} already exists"):
        save_pretrained(model, folder)
    for source in (folder, f"{folder}/model", f"{folder}/model.index"):
        again = load_pretrained(source)
        assert_same(model, again)
        found = Vocabulary.load(again.vocab_file)
        assert found.tokens == vocabulary.tokens
    damaged = paths.join(folder, "model.index")
    with paths.atomic_file(damaged, "wb") as stream:
        stream.write(b"cut")
    with pytest.raises(UserError, match=f"^{damaged} is truncated"):
        load_pretrained(folder)
    with pytest.raises(UserError, match=f"^{bucket}/absent does not exist"):
        load_pretrained(f"{bucket}/absent")


def test_of_a_run_in_a_bucket_one_checkpoint_is_fetched(
    model, bucket, monkeypatch
):
    manager = tf.train.CheckpointManager(
        tf.train.Checkpoint(model=model), f"{bucket}/checkpoints", max_to_keep=3
    )
    first = [variable.numpy() for variable in model.variables]
    manager.save()
    for variable in model.variables:
        variable.assign(variable + 1)
    manager.save()
    model.config.to_json(f"{bucket}/albert_config.json")
    fetched = []
    copy_file = paths.copy_file
    monkeypatch.setattr(
        paths, "copy_file", lambda a, b: fetched.append(a) or copy_file(a, b)
    )
    assert_same(model, load_pretrained(bucket))
    assert f"{bucket}/checkpoints/ckpt-2.index" in fetched
    assert not any("ckpt-1" in path for path in fetched)
    older = load_pretrained(f"{bucket}/checkpoints/ckpt-1")
    for array, variable in zip(first, older.variables, strict=True):
        np.testing.assert_array_equal(array, variable)


RECIPE = """
model: {bucket}/albert_config.json
train_steps: 4
global_batch_size: 4
warmup_steps: 1
max_seq_length: 32
log_every: 1
checkpoint_every: 2
eval_every: 4
hidden_dropout_prob: 0.1
"""


def write_corpus(folder, tiny_config):
    """Writes a corpus, its vocabulary, a configuration and a recipe."""
    rng = random.Random(7)
    characters = [chr(0x4E00 + i) for i in range(195)]
    vocabulary = Vocabulary([*SPECIAL_TOKENS, *characters, "。"])
    with paths.atomic_file(f"{folder}/vocab.txt", "wb") as stream:
        stream.write(vocabulary.to_bytes())
    for number in range(2):
        with paths.atomic_file(f"{folder}/corpus/{number}.txt") as stream:
            for _ in range(40):
                for _ in range(rng.randrange(2, 9)):
                    stream.write("".join(rng.choices(characters, k=9)) + "。\n")
                stream.write("\n")
    config = tiny_config.replace(vocab_size=len(vocabulary))
    config.to_json(f"{folder}/albert_config.json")
    with paths.atomic_file(f"{folder}/recipe.yaml") as stream:
        stream.write(RECIPE.format(bucket=folder))


def build(folder):
    build_pretraining_data.main(
        f"--input_file {folder}/corpus/*.txt --vocab_file {folder}/vocab.txt "
        f"--output_dir {folder}/records --max_seq_length 32 --num_workers 1 "
        "--segmenter none --eval_fraction 0.2".split()
    )


def train(folder, *arguments, data=None, workdir="run"):
    """Runs the README's own command, on what there is here."""
    readme = Path(__file__).parents[1] / "README.md"
    (line,) = re.findall(
        r"^python -m albert_tf2\.pretrain (.*gs://.*)$",
        readme.read_text(encoding="utf-8"),
        re.M,
    )
    for before, after in [
        ("configs/pretrain_base.yaml", f"{folder}/recipe.yaml"),
        ("gs://bucket/records", f"{data or folder}/records"),
        ("gs://bucket/run", f"{folder}/{workdir}"),
        ("--strategy tpu", "--strategy mirrored"),
    ]:
        assert before in line
        line = line.replace(before, after)
    return pretrain.main([*line.split(), *arguments])


def test_pre_training_in_a_bucket_is_stopped_resumed_and_published(
    bucket, tiny_config, tmp_path, capsys, monkeypatch
):
    write_corpus(bucket, tiny_config)
    build(bucket)
    monkeypatch.chdir(tmp_path)
    write_corpus(str(tmp_path), tiny_config)
    train(str(tmp_path), data=bucket)

    append = paths.append_line

    def stop(path, text):
        append(path, text)
        if path.endswith("metrics.jsonl") and '"step": 3' in text:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(paths, "append_line", stop)
        with pytest.raises(loop.Preempted):
            train(bucket)
    assert ".lock" not in paths.names(f"{bucket}/run")
    with paths.lock(f"{bucket}/run"):
        with pytest.raises(UserError, match="in use by another run"):
            train(bucket)
    train(bucket)
    rows = [
        [
            {name: row[name] for name in ("step", "loss", "gradient_norm")}
            for row in run_log.read_rows(f"{root}/run/metrics.jsonl")
        ]
        for root in (bucket, str(tmp_path))
    ]
    assert rows[0] == rows[1] and [row["step"] for row in rows[0]] == [
        1,
        2,
        3,
        4,
    ]
    assert_same(load_pretrained(f"{bucket}/run"), load_pretrained("run"))
    capsys.readouterr()
    train(bucket, "--evaluate")
    last = run_log.read_rows(f"{bucket}/run/evaluation.jsonl")[-1]
    assert f"{last['mlm_loss']:.6g}" in capsys.readouterr().out
    plot.main([f"{bucket}/run"])
    assert paths.read_bytes(f"{bucket}/run/curves.png")[1:4] == b"PNG"

    export.main(
        f"--checkpoint {bucket}/run --export_dir {bucket}/exported "
        f"--data_dir {bucket}/records --what preprocessor,encoder,cards".split()
    )
    assert "verified" in capsys.readouterr().out
    assert "training curves" in paths.read_text(
        f"{bucket}/exported/cards/1/encoder.md"
    )
    paths.copy_folder(f"{bucket}/exported/encoder/1", tmp_path / "moved")
    loaded = tf.saved_model.load(str(tmp_path / "moved"))
    assert loaded.variables
    convert.main(
        f"--input {bucket}/run --strip --output {bucket}/converted".split()
    )
    assert_same(load_pretrained(f"{bucket}/converted"), load_pretrained("run"))
    # Nothing of all this went to a local folder `ram:`.
    assert not [name for name in os.listdir(tmp_path) if ":" in name]


def test_a_misspelled_bucket_is_refused(tmp_path, monkeypatch, tiny_config):
    monkeypatch.chdir(tmp_path)
    write_corpus(str(tmp_path), tiny_config)
    build(str(tmp_path))
    before = sorted(os.listdir(tmp_path))
    for flag in ("--workdir", "--data_dir", "--init_checkpoint"):
        with pytest.raises(UserError, match="write gs://bucket/x, or"):
            train(str(tmp_path), flag, "gs:/bucket/x")
    with pytest.raises(UserError, match="is not served by TensorFlow"):
        train(str(tmp_path), "--workdir", "s3://bucket/run")
    left = set(os.listdir(tmp_path)) - {"run"}
    assert sorted(left) == before


def test_fine_tuning_in_a_bucket_answers_there(model, bucket):
    write_corpus(bucket, model.config)
    vocab_file = f"{bucket}/vocab.txt"
    model = AlbertPretrainer(model.config.replace(vocab_size=201))
    save_pretrained(model, f"{bucket}/model", vocab_file=vocab_file)
    characters = [chr(0x4E00 + i) for i in range(12)]
    for split in ("train", "dev"):
        with paths.atomic_file(f"{bucket}/pairs/{split}.txt") as stream:
            for number, a in enumerate(characters):
                b = characters[number - 1 + number % 2]
                stream.write(f"{a * 4}\t{b * 4}\t{number % 2}\n")
    arguments = [
        *("--task", "lcqmc", "--data_dir", f"{bucket}/pairs"),
        *("--init_checkpoint", f"{bucket}/model", "--strategy", "one_device"),
        *("--workdir", f"{bucket}/tuned", "--set", "max_train_steps=2"),
        *("--set", "max_seq_length=32"),
    ]
    assert finetune.main(arguments) == 0
    results = paths.read_json(f"{bucket}/tuned/results.json")
    assert results["dev"]["rows"] == 12
    assert finetune.main(arguments) == 0  # finished already
    with paths.atomic_file(f"{bucket}/texts.txt") as stream:
        stream.write("一一\t丁丁\n一一\t一一\n")
    predict.main(
        f"classify --model {bucket}/tuned --input_file {bucket}/texts.txt "
        f"--output_file {bucket}/answers.jsonl".split()
    )
    answers = paths.read_text(f"{bucket}/answers.jsonl").splitlines()
    assert len(answers) == 2 and '"label"' in answers[0]
