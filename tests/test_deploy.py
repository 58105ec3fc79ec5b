"""The programs of docs/deploy.md, where a model really goes: no TensorFlow."""

import re
from pathlib import Path

import phone_model
import pytest
import task_samples
from bare_python import BarePython

DOCS = Path(__file__).resolve().parents[1] / "docs"


def program_of(section):
    """Returns the Python program of a section of the page."""
    text = (DOCS / "deploy.md").read_text("utf-8")
    part = re.split(r"^## ", text, flags=re.M)
    (found,) = [one for one in part if one.startswith(section)]
    (program,) = re.findall(r"```python\n(.*?)```", found, re.S)
    return program


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    pytest.importorskip("ai_edge_litert", reason="[litert]")
    folder = tmp_path_factory.mktemp("bare") / "packages"
    return BarePython(folder, ["numpy", "ai_edge_litert"])


def test_there_is_no_tensorflow(bare):
    assert (
        "No module named 'tensorflow'" in bare.run("import tensorflow").stderr
    )


def test_litert_answers_without_tensorflow(bare, tmp_path):
    folder = tmp_path / "exported" / "tflite" / "1"
    folder.mkdir(parents=True)
    _, function = phone_model.write(folder, 64)
    run = bare.run(program_of("LiteRT"), cwd=tmp_path)
    assert run.returncode == 0, run.stderr[-2000:]
    row = phone_model.row_of("今天天气很好", 64)
    best = function(**row)["probabilities"][0].numpy().argmax()
    assert run.stdout.strip() == phone_model.LABELS[best]


@pytest.mark.filterwarnings("ignore:.*no mlm and no sop head")
@pytest.mark.large
def test_onnx_runtime_answers_without_tensorflow(tmp_path):
    pytest.importorskip("tf2onnx", reason="[onnx]")
    from albert_tf2 import AlbertPretrainer, Predictor, save_pretrained
    from albert_tf2.finetuning import encoders
    from albert_tf2.hub_export import export
    from albert_tf2.tasks import base, registry

    vocab_file = task_samples.write_vocab(tmp_path)
    source = save_pretrained(
        AlbertPretrainer(task_samples.small_config(vocab_file)),
        tmp_path / "source",
        vocab_file=vocab_file,
    )
    task = registry.create("tnews")
    task.restore({"task": "tnews", "labels": ["体育", "财经"], "pairs": False})
    loaded = encoders.load_encoder(str(source))
    encoders.save(
        tmp_path / "tuned" / "model",
        model=encoders.build(task, loaded, seed=0),
        task=task,
        loaded=loaded,
        lengths=base.Lengths(max_seq_length=24),
    )
    command = ["--checkpoint", str(tmp_path / "tuned"), "--what", "onnx"]
    export.main([*command, "--export_dir", str(tmp_path / "exported")])
    bare = BarePython(tmp_path / "packages", ["numpy", "onnxruntime"])
    run = bare.run(program_of("ONNX Runtime"), cwd=tmp_path)
    assert run.returncode == 0, run.stderr[-2000:]
    (answer,) = Predictor(tmp_path / "tuned").classify(["今天天气很好"])
    assert run.stdout.strip() == answer["label"]
