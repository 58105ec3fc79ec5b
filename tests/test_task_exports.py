"""Fine-tuned models on their way out: whole, or refused with the reason."""

import json
import random
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import task_samples as samples
from checks import check_export

from albert_tf2 import Tokenizer, UserError
from albert_tf2.hub_export import export
from albert_tf2.prediction.predictor import Predictor

LENGTH = 24
pytestmark = pytest.mark.usefixtures("warm_python")
# What each task's training data would have told.
TOLD = {
    "lcqmc": {"labels": ["0", "1"], "pairs": True},
    "tnews": {"labels": ["体育", "财经", "房产"], "pairs": False},
    "multi_label": {"labels": ["卫生", "价格"], "pairs": False},
    "regression": {
        "labels": [],
        "pairs": True,
        "mean": 2.5,
        "spread": 1.5,
        "steps": [0, 1, 2, 3, 4, 5],
    },
    "ner": {"labels": [], "types": ["name", "place"]},
    "cmrc2018": {"labels": [], "has_unanswerable": False},
    "c3": {"labels": []},
    "chid": {"labels": []},
    "qa": {"labels": [], "has_unanswerable": True},
}


def hard_texts(count=200, seed=0):
    """Texts with emoji, empty and over-long ones, of the sample's words."""
    rng = random.Random(seed)
    pieces = [*samples.CHARACTERS, "albert", "A", "É", " ", "\u3000", "🙂"]
    pieces += ["👨‍👩‍👧", "“", "…", "Ａ", "\u200b", "2024", "\t"]
    texts = ["", " ", "🙂", "今天天气很好" * 30]
    while len(texts) < count:
        size = rng.choice([1, 3, 8, 20, 60])
        texts.append("".join(rng.choices(pieces, k=size)))
    return texts


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A model whose texts are folded, so that this must travel, too."""
    from albert_tf2.checkpoints import save_pretrained
    from albert_tf2.keras_api import keras
    from albert_tf2.model.albert import AlbertPretrainer
    from albert_tf2.text.text_settings import TextSettings

    folder = tmp_path_factory.mktemp("pretrained")
    vocab_file = samples.write_vocab(folder)
    keras.utils.set_random_seed(1)
    model = AlbertPretrainer(samples.small_config(vocab_file))
    model.text_settings = TextSettings(normalize=True)
    return save_pretrained(model, folder / "model", vocab_file=vocab_file)


def spread_answers(model, loaded, *, to_cls):
    """Gives a head weights by which texts get different answers.

    With `to_cls`, [CLS] is now and then the best place.
    """
    rng = np.random.default_rng(3)
    ids = rng.integers(5, len(loaded.tokenizer.vocabulary), [32, 12])
    inputs = {"input_word_ids": ids.astype(np.int32)}
    inputs["input_mask"] = np.ones_like(inputs["input_word_ids"])
    inputs["input_type_ids"] = np.zeros_like(inputs["input_word_ids"])
    per_token = model.kind in ("tagging", "span")
    outputs = loaded.encoder(inputs)
    read = outputs["sequence_output" if per_token else "pooled_output"].numpy()
    hidden = read.reshape([-1, read.shape[-1]])
    weights = (1 if per_token else 9) * rng.normal(
        size=model.head.output_weights.shape
    )
    if to_cls:
        away = read[:, 0].mean(0) - hidden.mean(0)
        weights += 3 * away / np.square(away).sum()
    model.head.output_weights.assign(weights)
    model.head.output_bias.assign(-weights @ hidden.mean(0))


@pytest.fixture(scope="module")
def tuned(pretrained, tmp_path_factory):
    """Returns a function from a task to a workdir with an untrained model."""
    from albert_tf2.finetuning import encoders
    from albert_tf2.tasks import base, registry

    root = tmp_path_factory.mktemp("tuned")

    def folder_of(name):
        if not (root / name).exists():
            task = registry.create(name)
            task.restore({"task": name, **TOLD[name]})
            loaded = encoders.load_encoder(str(pretrained))
            model = encoders.build(task, loaded, seed=0)
            spread_answers(model, loaded, to_cls=name == "qa")
            encoders.save(
                root / name / "model",
                model=model,
                task=task,
                loaded=loaded,
                lengths=base.Lengths(
                    max_seq_length=LENGTH,
                    max_query_length=8,
                    doc_stride=6,
                    max_answer_length=5,
                    n_best=4,
                ),
            )
        return root / name

    return folder_of


# Runs in a process that knows nothing of this project.
PROGRAM = """
import json, sys
import tensorflow as tf, tensorflow_text
given = json.load(open(sys.argv[2], encoding="utf-8"))
loaded = tf.saved_model.load(sys.argv[1])
answers = loaded.signatures[sys.argv[3]](
    **{name: tf.constant(value) for name, value in given.items()})
def plain(value):
    value = value.numpy()
    if value.dtype == object:
        return tf.nest.map_structure(bytes.decode, value.tolist())
    return value.tolist()
json.dump({k: plain(v) for k, v in answers.items()},
          open(sys.argv[4], "w", encoding="utf-8"))
assert "albert_tf2" not in sys.modules
"""


def serve(folder, tmp_path, given, signature):
    """Asks a moved export in a fresh process; returns its answers."""
    moved = shutil.move(folder, tmp_path / "moved")
    (tmp_path / "given.json").write_text(json.dumps(given), "utf-8")
    subprocess.run(
        [sys.executable, "-c", PROGRAM, moved, tmp_path / "given.json"]
        + [signature, tmp_path / "answers.json"],
        check=True,
        cwd=tmp_path,
    )
    return json.loads((tmp_path / "answers.json").read_text("utf-8"))


def export_serving(folder, tmp_path, *flags):
    exported = check_export(folder, tmp_path / "out", "serving", *flags)
    return exported / "serving" / "1"


def test_a_classifier_of_texts(tuned, tmp_path, capsys):
    folder = tuned("tnews")
    exported = export_serving(folder, tmp_path)
    printed = capsys.readouterr().out
    assert "verified: probabilities differ from the predictor's by" in printed
    assert "verified: labels are the model's own names" in printed
    assets = exported / "assets"
    assert Tokenizer(assets).settings.normalize
    task = json.loads((assets / "task.json").read_text("utf-8"))
    assert task["labels"] == TOLD["tnews"]["labels"]
    assert task["lengths"]["max_seq_length"] == LENGTH

    texts = hard_texts()
    expected = Predictor(folder).classify(texts)
    answers = serve(exported, tmp_path, {"text": texts}, "classify")
    assert answers["label"] == [answer["label"] for answer in expected]
    for row, answer in enumerate(expected):
        assert answers["labels"][row] == [*answer["probabilities"]]
        np.testing.assert_allclose(
            answers["probabilities"][row],
            [*answer["probabilities"].values()],
            atol=1e-5,
        )
        assert answers["probability"][row] == pytest.approx(
            answer["probability"], abs=1e-5
        )
    assert len(set(answers["label"])) > 1


def test_a_classifier_of_pairs(tuned, tmp_path):
    folder = tuned("lcqmc")
    first, second = hard_texts(seed=1), hard_texts(seed=2)[::-1]
    expected = Predictor(folder).classify(list(zip(first, second, strict=True)))
    exported = export_serving(folder, tmp_path)
    given = {"text_a": first, "text_b": second}
    answers = serve(exported, tmp_path, given, "serving_default")
    assert answers["label"] == [answer["label"] for answer in expected]
    np.testing.assert_allclose(
        answers["probabilities"],
        [[*answer["probabilities"].values()] for answer in expected],
        atol=1e-5,
    )


def test_several_labels(tuned, tmp_path):
    folder = tuned("multi_label")
    texts = hard_texts(seed=3)
    expected = Predictor(folder).classify(texts)
    exported = export_serving(folder, tmp_path)
    answers = serve(exported, tmp_path, {"text": texts}, "classify")
    for row, answer in enumerate(expected):
        chosen = zip(
            answers["labels"][row], answers["chosen"][row], strict=True
        )
        assert [label for label, yes in chosen if yes] == answer["labels"]
        np.testing.assert_allclose(
            answers["probabilities"][row],
            [*answer["probabilities"].values()],
            atol=1e-5,
        )


def test_scores(tuned, tmp_path):
    folder = tuned("regression")
    first, second = hard_texts(seed=4), hard_texts(seed=5)
    expected = Predictor(folder).score(list(zip(first, second, strict=True)))
    exported = export_serving(folder, tmp_path)
    given = {"text_a": first, "text_b": second}
    answers = serve(exported, tmp_path, given, "score")
    np.testing.assert_allclose(
        answers["score"],
        [a["score"] for a in expected],
        atol=1e-5,
        rtol=1e-5,  # they are around 10
    )
    assert answers["nearest"] == [a["nearest"] for a in expected]


def test_tagging(tuned, tmp_path):
    folder = tuned("ner")
    # A sign that becomes three tokens, and offsets past an emoji.
    texts = [*hard_texts(seed=6), "\U0001f642天…气…Ａ1…很" * 9, "ΑΣ Σ"]
    expected = Predictor(folder).tag(texts)
    exported = export_serving(folder, tmp_path)
    answers = serve(exported, tmp_path, {"text": texts}, "tag")
    found = [row["entities"] for row in expected]
    assert answers["counts"] == [len(entities) for entities in found]
    assert sum(answers["counts"]) > 200
    for row, entities in enumerate(found):
        for key, name, absent in (
            ("type", "types", ""),
            ("text", "texts", ""),
            ("start", "starts", -1),
            ("end", "ends", -1),
        ):
            values = [entity[key] for entity in entities]
            width = len(answers[name][row])
            assert answers[name][row] == (
                values + [absent] * (width - len(values))
            ), texts[row]
        np.testing.assert_allclose(
            answers["probabilities"][row][: len(entities)],
            [entity["probability"] for entity in entities],
            atol=1e-5,
        )
    assert {e["type"] for row in found for e in row} == {"name", "place"}
    # Windows were needed, and their borders were not.
    assert max(e["end"] for row in found for e in row) > LENGTH


def assert_same_spans(answers, expected, texts):
    """Compares ranked answers; equal scores may change places."""
    for row, (answer, text) in enumerate(zip(expected, texts, strict=True)):
        best = answer["n_best"]
        count = len(best)
        assert answers["count"][row] == count
        assert answers["answer"][row] == answers["n_best_texts"][row][0]
        columns = {
            key: answers[f"n_best_{name}"][row]
            for key, name in (
                ("text", "texts"),
                ("start", "starts"),
                ("end", "ends"),
                ("score", "scores"),
                ("probability", "probabilities"),
            )
        }
        for key in ("score", "probability"):
            np.testing.assert_allclose(
                columns[key][:count], [b[key] for b in best], atol=1e-5
            )
        assert not any(columns["probability"][count:])
        assert not any(columns["text"][count:])
        for place, wanted in enumerate(best):
            start, end = columns["start"][place], columns["end"][place]
            shown = text[start:end] if start >= 0 else ""
            assert columns["text"][place] == shown
            if (start, end) != (wanted["start"], wanted["end"]):
                others = [
                    b["score"]
                    for b in best
                    if (b["start"], b["end"]) == (start, end)
                ] or [best[-1]["score"]]  # the last one has equals outside
                assert others[0] == pytest.approx(wanted["score"], abs=3e-5)
        assert answers["start"][row] == columns["start"][0]
        assert answers["end"][row] == columns["end"][0]


@pytest.mark.parametrize("name", ["cmrc2018", "qa"])
def test_reading_comprehension(tuned, tmp_path, name):
    folder = tuned(name)
    questions, texts = hard_texts(seed=7), hard_texts(seed=8)[::-1]
    texts[5], texts[6] = "…Ａ…" * 20, "\U0001f642" * 50
    questions[0] = questions[-1] = "天气如何"
    expected = Predictor(folder).answer(
        list(zip(questions, texts, strict=True))
    )
    exported = export_serving(folder, tmp_path)
    given = {"question": questions, "text": texts}
    answers = serve(exported, tmp_path, given, "answer")
    assert_same_spans(answers, expected, texts)
    assert len({answer["answer"] for answer in expected}) > 50
    if name == "qa":
        assert -1 in answers["start"]
        # Of "no answer" the least sure of several windows counts.
        assert any(
            len(text) > 2 * LENGTH and any(b["start"] < 0 for b in a["n_best"])
            for text, a in zip(texts, expected, strict=True)
        )


def test_choices(tuned, tmp_path):
    folder = tuned("c3")
    texts, questions = hard_texts(seed=9), hard_texts(seed=10)[::-1]
    words = [text or " " for text in hard_texts(800, seed=11)]
    rng = random.Random(12)
    choices = [words[4 * i : 4 * i + rng.choice([2, 3, 4])] for i in range(200)]
    expected = Predictor(folder).choose(
        list(zip(texts, questions, choices, strict=True))
    )
    exported = export_serving(folder, tmp_path)
    given = {"text": texts, "question": questions}
    given["choices"] = [[*row, *[""] * (4 - len(row))] for row in choices]
    answers = serve(exported, tmp_path, given, "choose")
    assert answers["label"] == [answer["label"] for answer in expected]
    assert answers["choice"] == [answer["choice"] for answer in expected]
    for row, answer in enumerate(expected):
        found = answers["probabilities"][row]
        absent = [0.0] * (4 - len(answer["probabilities"]))
        np.testing.assert_allclose(
            found, [*answer["probabilities"], *absent], atol=1e-5
        )
    assert set(answers["label"]) == {0, 1, 2, 3}


def test_idioms_in_blanks(tuned, tmp_path):
    folder = tuned("chid")
    before, after = hard_texts(seed=13), hard_texts(seed=14)[::-1]
    tags = ["#idiom000378#", "#idiom#", "#idiom٣#", "____"]
    tags = [tags[i % 4] for i in range(200)]
    texts = [
        f"{a}#idiom٣#{a}{tag}{b}#idiom#{b}"
        for a, tag, b in zip(before, tags, after, strict=True)
    ]
    choices = [samples.IDIOMS[i % 7 :][:3] for i in range(200)]
    expected = Predictor(folder).choose(
        list(zip(texts, tags, choices, strict=True))
    )
    exported = export_serving(folder, tmp_path)
    given = {"text": texts, "question": tags, "choices": choices}
    answers = serve(exported, tmp_path, given, "choose")
    assert answers["label"] == [answer["label"] for answer in expected]
    np.testing.assert_allclose(
        answers["probabilities"],
        [answer["probabilities"] for answer in expected],
        atol=1e-5,
    )
    assert set(answers["label"]) == {0, 1, 2}


def test_another_length_is_a_shorter_one(tuned, tmp_path):
    folder = tuned("tnews")
    with pytest.raises(UserError, match="at most 24.* Received: 25"):
        export_serving(folder, tmp_path, "--seq_length", "25")
    exported = export_serving(folder, tmp_path, "--seq_length", "8")
    texts = ["今天天气很好" * 5, "今天天气很好"]
    answers = serve(exported, tmp_path, {"text": texts}, "classify")
    assert answers["probabilities"][0] == pytest.approx(
        answers["probabilities"][1], abs=1e-5
    )


@pytest.mark.parametrize(
    "flags, reason",
    [
        (["--what", "encoder"], "no place for the head"),
        (["--what", "serving,encoder"], "no place for the head"),
        (["--cased"], "--cased has no meaning"),
        (["--vocab_file", "vocab.txt"], "--vocab_file has no meaning"),
        (["--dropout", "0.1"], "--dropout has no meaning"),
        (["--what", "tflite", "--calibration_file", __file__], "full int8"),
    ],
)
def test_what_has_no_place_for_the_head_is_refused(
    tuned, tmp_path, flags, reason
):
    with pytest.raises(UserError, match=reason):
        export.main(
            ["--checkpoint", str(tuned("tnews"))]
            + ["--export_dir", str(tmp_path / "out"), *flags]
        )
    assert not (tmp_path / "out").exists()


def read_tflite(path, *, strings):
    """Opens a file with LiteRT alone, not with this project's helper."""
    from ai_edge_litert import interpreter as litert

    if not strings:
        run = litert.Interpreter(str(path))
    else:
        import tensorflow_text as tf_text

        run = litert.InterpreterWithCustomOps(
            custom_op_registerers=tf_text.tflite_registrar.SELECT_TFTEXT_OPS,
            model_path=str(path),
        )
    return run.get_signature_runner()


def export_tflite(folder, tmp_path, *flags):
    exported = check_export(folder, tmp_path / "out", "tflite", *flags)
    return exported / "tflite" / "1"


@pytest.mark.parametrize("name", ["tnews", "lcqmc"])
def test_classifiers_for_phones(tuned, tmp_path, capsys, name):
    pytest.importorskip("ai_edge_litert", reason="[litert]")
    folder = tuned(name)
    exported = export_tflite(folder, tmp_path)
    printed = capsys.readouterr().out
    assert "0 of 5 labels changed" in printed
    labels = (exported / "labels.txt").read_text("utf-8").splitlines()
    assert labels == TOLD[name]["labels"]
    path = exported / "classifier_fp32_strings.tflite"
    with zipfile.ZipFile(path) as archive:
        inside = archive.read("labels.txt").decode().splitlines()
        task = json.loads(archive.read("task.json"))
    assert inside == labels == task["labels"]
    texts = hard_texts(40, seed=15)
    rows = texts
    given = [{"text": text} for text in texts]
    if TOLD[name]["pairs"]:
        rows = list(zip(texts, texts[::-1], strict=True))
        given = [{"text_a": a, "text_b": b} for a, b in rows]
    run = read_tflite(path, strings=True)
    assert set(run.get_input_details()) == set(given[0])
    for one, answer in zip(
        given, Predictor(folder).classify(rows), strict=True
    ):
        found = run(**{key: np.array([text]) for key, text in one.items()})
        np.testing.assert_allclose(
            found["probabilities"],
            [[*answer["probabilities"].values()]],
            atol=1e-5,
        )


def test_phones_score_and_label_severally(tuned, tmp_path):
    for name, output in (("regression", "score"), ("multi_label", None)):
        exported = export_tflite(tuned(name), tmp_path / name)
        names = sorted(path.name for path in exported.glob("*.tflite"))
        begin = "regression" if output else "classifier"
        assert names == [
            f"{begin}_{variant}.tflite"
            for variant in (
                "dynamic_int8_24",
                "dynamic_int8_strings",
                "fp16_24",
                "fp32_24",
                "fp32_strings",
            )
        ]
        assert (exported / "labels.txt").exists() == (output is None)


@pytest.mark.parametrize("name", ["ner", "cmrc2018", "c3"])
def test_what_phones_cannot_do_is_refused(tuned, tmp_path, name):
    with pytest.raises(UserError, match="TFLite has no operations.*serving"):
        export_tflite(tuned(name), tmp_path)
    assert not (tmp_path / "out").exists()


def test_the_card_names_task_and_labels(tuned, tmp_path):
    given = ["--checkpoint", str(tuned("tnews"))]
    given += ["--export_dir", str(tmp_path), "--what", "serving,cards"]
    assert export.main([*given, "--name", "news"]) == 0
    card = (tmp_path / "cards/1/model.md").read_text("utf-8")
    assert "# albert_news" in card and "text-classification" in card
    assert "0. 体育\n1. 财经\n2. 房产\n" in card
    assert 'signatures["classify"](text=...)' in card
    assert f"{LENGTH} tokens" in card
    assert "Not recorded." in card  # nothing was measured
    facts = json.loads((tmp_path / "cards/1/facts.json").read_text("utf-8"))
    assert facts["parts"] == ["serving"]
    assert facts["task"]["labels"] == TOLD["tnews"]["labels"]


@pytest.mark.parametrize("name", ["ner", "cmrc2018", "c3", "chid"])
def test_what_warms_a_server_up_is_answered(tuned, name):
    import tensorflow as tf

    from albert_tf2.hub_export import task_serving, tuned_parts

    model = tuned_parts.load(str(tuned(name) / "model"), None)
    make, _ = task_serving.GRAPHS[model.task.kind]
    graph = make(model)
    names = [spec.name for spec in graph.specs()]
    for large, rows in ((False, 1), (True, 32)):
        given = graph.requests(large=large)
        assert list(given) == names
        answers = graph.answer(*map(tf.constant, given.values()))
        assert {len(value) for value in answers.values()} == {rows}
