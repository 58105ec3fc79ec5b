"""Fine-tuned models through `convert`: head, labels and task, or a refusal."""

import json

import numpy as np
import pytest
import task_samples as samples
from checks import check_export

from albert_tf2 import UserError, convert, paths
from albert_tf2.checkpoints import read_weights
from albert_tf2.prediction.predictor import Predictor

LENGTH = 24
TOLD = {
    "tnews": {"labels": ["体育", "财经", "房产"], "pairs": False},
    "multi_label": {"labels": ["卫生", "价格"], "pairs": False},
    "regression": {
        "labels": [],
        "pairs": False,
        "mean": 2.5,
        "spread": 1.5,
        "steps": [0, 1, 2, 3, 4, 5],
    },
    "ner": {"labels": [], "types": ["name", "place"]},
    "cmrc2018": {"labels": [], "has_unanswerable": False},
    "c3": {"labels": []},
}
NAMES = list(TOLD)
TEXTS = ["今天天气很好", "叶老桂去浙商银行", "a", "我喜欢妈妈做的汤" * 5]
GOOGLE = {"layout": "google"}
BRIGHTMART = {"layout": "brightmart"}

pytestmark = pytest.mark.filterwarnings("ignore:.*no mlm and no sop head")


def tuned_model(name, folder, **config):
    """Writes a workdir with an untrained model of a task; returns it."""
    from albert_tf2.checkpoints import save_pretrained
    from albert_tf2.finetuning import encoders
    from albert_tf2.keras_api import keras
    from albert_tf2.model.albert import AlbertPretrainer
    from albert_tf2.tasks import base, registry

    folder.mkdir()
    vocab_file = samples.write_vocab(folder)
    keras.utils.set_random_seed(1)
    model = AlbertPretrainer(samples.small_config(vocab_file, **config))
    save_pretrained(model, folder / "start", vocab_file=vocab_file)
    task = registry.create(name)
    task.restore({"task": name, **TOLD[name]})
    loaded = encoders.load_encoder(str(folder / "start"))
    tuned = encoders.build(task, loaded, seed=0)
    rng = np.random.default_rng(3)
    head = tuned.head
    head.output_weights.assign(rng.normal(size=head.output_weights.shape))
    head.output_bias.assign(rng.normal(size=head.output_bias.shape))
    encoders.save(
        folder / "model",
        model=tuned,
        task=task,
        loaded=loaded,
        lengths=base.Lengths(max_seq_length=LENGTH, doc_stride=6, n_best=3),
    )
    return folder


def ask(folder, name):
    """Returns a predictor's answers."""
    predictor = Predictor(folder)
    if name in ("tnews", "multi_label"):
        return predictor.classify(TEXTS)
    if name == "regression":
        return predictor.score(TEXTS)
    if name == "ner":
        return predictor.tag(TEXTS)
    if name == "cmrc2018":
        return predictor.answer([("天气如何", text) for text in TEXTS])
    return predictor.choose([(t, "如何", ["很好", "很坏"]) for t in TEXTS])


def assert_same(found, expected):
    """Compares answers; numbers are rounded there."""
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        found, expected = list(found.values()), list(expected.values())
    if isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, abs=2e-5)
    else:
        assert found == expected


def run(folder, target, out):
    flags = ["--strip"] if target == "strip" else ["--to", target]
    given = ["--input", str(folder), "--output", str(out), *flags]
    assert convert.main(given) == 0
    return paths.read_json(out / "conversion.json")


@pytest.mark.parametrize("target", ["tf2", "tf1", "strip"])
@pytest.mark.parametrize("name", NAMES)
def test_it_answers_as_before(name, target, tmp_path):
    folder = tuned_model(name, tmp_path / "run", **BRIGHTMART)
    certificate = run(folder, target, tmp_path / "out")
    assert certificate["max_abs_difference"]["task_logits"] < 1e-5
    assert certificate["left_out"]["task_head"] == []
    assert certificate["task"]["labels"] == list(
        read_weights(folder).task_labels
    )
    assert_same(ask(tmp_path / "out", name), ask(folder, name))


def test_a_head_behind_a_layer_norm(tmp_path):
    folder = tuned_model("tnews", tmp_path / "run", ln_type="preln")
    for target in ("tf2", "tf1"):
        certificate = run(folder, target, tmp_path / target)
        assert certificate["max_abs_difference"]["task_logits"] < 2e-5
        assert_same(ask(tmp_path / target, "tnews"), ask(folder, "tnews"))


def test_a_wrong_head_is_not_kept(tmp_path, monkeypatch):
    from albert_tf2.checkpoints import native

    folder = tuned_model("tnews", tmp_path / "run")
    right = native._task_head

    def wrong(arrays):
        head = right(arrays)
        head.output_bias.assign_add([0.0, 1e-3, 0.0])
        return head

    monkeypatch.setattr(native, "_task_head", wrong)
    with pytest.raises(UserError, match="`task_logits` by 1.0e-03"):
        run(folder, "tf2", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "name, key, value",
    [
        ("tnews", "labels", True),
        ("tnews", "labels", ["体育", 3, "房产"]),
        ("tnews", "labels", ["体育", "财经"]),
        ("tnews", "kind", {}),
        ("regression", "mean", "x"),
        ("regression", "spread", None),
    ],
)
def test_a_damaged_task_is_told(name, key, value, tmp_path):
    folder = tuned_model(name, tmp_path / "tuned") / "model"
    task = paths.read_json(folder / "task.json")
    paths.write_json(folder / "task.json", {**task, key: value})
    with pytest.raises(UserError, match=f"task.json: `{key}` is damaged"):
        convert.main(
            ["--input", str(folder), "--output", str(tmp_path / "out")]
            + ["--to", "tf1"]
        )
    assert not (tmp_path / "out").exists()


def test_a_hub_encoder_has_no_place_for_it(tmp_path):
    folder = tuned_model("tnews", tmp_path / "run")
    with pytest.raises(UserError, match="no place for its head.*serving"):
        run(folder, "hub", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", NAMES)
def test_onnx_has_logits_labels_and_task(name, tmp_path):
    ort = pytest.importorskip("onnxruntime", reason="[onnx]")
    folder = tuned_model(name, tmp_path / "run", **BRIGHTMART)
    certificate = run(folder, "onnx", tmp_path / "out")
    assert certificate["max_abs_difference"]["task_logits"] < 2e-5
    session = ort.InferenceSession(str(tmp_path / "out" / "model.onnx"))
    about = session.get_modelmeta().custom_metadata_map
    known = read_weights(folder)
    assert json.loads(about["labels"]) == list(known.task_labels)
    assert json.loads(about["task"])["lengths"]["max_seq_length"] == LENGTH
    if known.task_labels:
        labels = (tmp_path / "out" / "labels.txt").read_text("utf-8")
        assert tuple(labels.splitlines()) == known.task_labels
    if name not in ("tnews", "multi_label", "regression"):
        return
    predictor = Predictor(folder)
    ids = predictor.tokenizer.tokenize(TEXTS[0]).ids
    vocabulary = predictor.tokenizer.vocabulary
    row = np.array([[vocabulary.cls_id, *ids, vocabulary.sep_id]], np.int32)
    given = {"input_word_ids": row, "input_mask": np.ones_like(row)}
    given["input_type_ids"] = np.zeros_like(row)
    wanted = "score" if name == "regression" else "probabilities"
    (found,) = session.run([wanted], given)
    expected = ask(folder, name)[0][wanted]
    if isinstance(expected, dict):
        expected = [*expected.values()]
    np.testing.assert_allclose(found[0], expected, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*has no pooler")
@pytest.mark.parametrize("name", NAMES)
def test_hugging_face_and_back(name, tmp_path):
    pytest.importorskip("transformers", reason="[huggingface]")
    folder = tuned_model(name, tmp_path / "run", **GOOGLE)
    certificate = run(folder, "huggingface", tmp_path / "hf")
    assert certificate["max_abs_difference"]["task_logits"] < 2e-5
    assert certificate["left_out"]["task_head"] == []
    assert_same(ask(tmp_path / "hf", name), ask(folder, name))
    per_token = name in ("ner", "cmrc2018")
    pooler = ["bert/pooler/dense/bias", "bert/pooler/dense/kernel"]
    assert certificate["left_out"]["encoder"] == (pooler if per_token else [])


def test_a_run_folder_is_its_model(tmp_path):
    folder = tuned_model("tnews", tmp_path / "run")
    assert read_weights(folder).task_labels == tuple(TOLD["tnews"]["labels"])


def test_export_writes_onnx_too(tmp_path):
    pytest.importorskip("onnxruntime", reason="[onnx]")
    folder = tuned_model("tnews", tmp_path / "run")
    out = check_export(folder, tmp_path / "out", "onnx")
    written = {path.name for path in (out / "onnx/1").iterdir()}
    assert written >= {"model.onnx", "labels.txt", "vocab.txt"}


def test_a_model_on_a_hub_encoder_is_refused(tmp_path):
    folder = tuned_model("tnews", tmp_path / "run")
    (folder / "model" / "hub_encoder").mkdir()
    with pytest.raises(UserError, match="tuned on a hub encoder.*serving"):
        run(folder, "tf2", tmp_path / "out")


def test_describe_names_the_task(tmp_path, capsys):
    folder = tuned_model("tnews", tmp_path / "run")
    assert convert.main(["--describe", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "classification, tnews" in printed
    assert "体育, 财经, 房产" in printed
