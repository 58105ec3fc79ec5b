"""Hugging Face's classes for tasks, both ways, and files named directly."""

import json

import numpy as np
import pytest
import task_samples as samples
from test_task_head import TEXTS, ask, assert_same, run, tuned_model

from albert_tf2 import UserError, load_pretrained
from albert_tf2.checkpoints import conversion, read_weights
from albert_tf2.prediction.predictor import Predictor

torch = pytest.importorskip("torch", reason="[huggingface]")
transformers = pytest.importorskip("transformers", reason="[huggingface]")

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*no mlm and no sop head"),
    pytest.mark.filterwarnings("ignore:.*has no pooler"),
    pytest.mark.filterwarnings("ignore:.*no sop head"),
]
LABELS = ["O", "I-place", "B-place", "I-name", "B-name"]


def theirs(name, folder, **config):
    """Saves a random model of one of their classes, with a tokenizer."""
    folder.mkdir()
    vocab_file = samples.write_vocab(folder)
    values = {
        "vocab_size": samples.vocab_size(vocab_file),
        "embedding_size": 16,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
        "initializer_range": 0.3,
        **config,
    }
    torch.manual_seed(0)
    model = getattr(transformers, name)(transformers.AlbertConfig(**values))
    model.save_pretrained(folder)
    return model.eval()


def named(labels):
    return {
        "id2label": dict(enumerate(labels)),
        "label2id": {label: i for i, label in enumerate(labels)},
    }


def inputs(ids):
    ids = np.array(ids)
    return {
        "input_word_ids": ids.astype(np.int32),
        "input_mask": np.ones_like(ids, np.int32),
        "input_type_ids": np.zeros_like(ids, np.int32),
    }


def row_of(predictor, text):
    vocabulary = predictor.tokenizer.vocabulary
    ids = predictor.tokenizer.tokenize(text).ids
    return torch.tensor([[vocabulary.cls_id, *ids, vocabulary.sep_id]])


def test_masked_words_without_pooler(tmp_path):
    model = theirs("AlbertForMaskedLM", tmp_path / "hf")
    with pytest.warns(UserWarning, match="has no pooler"):
        found = load_pretrained(tmp_path / "hf")
    assert found.loaded_heads == ("mlm",)
    ids = np.random.default_rng(0).integers(5, 60, [2, 9])
    outputs = found(
        {
            **inputs(ids),
            "masked_lm_positions": np.array([[1, 2], [3, 4]], np.int32),
        }
    )
    with torch.no_grad():
        logits = model(torch.tensor(ids)).logits.numpy()
    np.testing.assert_allclose(
        outputs["mlm_logits"], logits[[[0], [1]], [[1, 2], [3, 4]]], atol=2e-5
    )
    assert not outputs["pooled_output"].numpy().any()
    # And back: nothing of the class is missing or made up.
    conversion.convert(
        read_weights(tmp_path / "hf"), "huggingface", tmp_path / "again"
    )
    again = transformers.AutoModelForMaskedLM.from_pretrained(
        tmp_path / "again"
    )
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_tags_in_another_order(tmp_path):
    model = theirs(
        "AlbertForTokenClassification", tmp_path / "hf", **named(LABELS)
    )
    run(tmp_path / "hf", "tf2", tmp_path / "ours")
    predictor = Predictor(tmp_path / "ours")
    assert predictor.task.labels == (
        "O",
        "B-name",
        "I-name",
        "B-place",
        "I-place",
    )
    text = "叶老桂去浙商银行"
    with torch.no_grad():
        logits = model(row_of(predictor, text)).logits[0, 1:-1]
    order = [LABELS.index(label) for label in predictor.task.labels]
    from albert_tf2.tasks import bio

    tags = bio.best_tags(logits[:, order].numpy(), predictor.task.labels)
    places = predictor.tokenizer.tokenize(text).offsets
    expected = [
        (e.start, e.end, e.type)
        for e in bio.spans_of(
            [predictor.task.labels[tag] for tag in tags], places
        )
    ]
    (answer,) = predictor.tag([text])
    assert expected
    assert [
        (e["start"], e["end"], e["type"]) for e in answer["entities"]
    ] == expected


def test_tags_that_are_no_bio_are_refused(tmp_path):
    theirs("AlbertForTokenClassification", tmp_path / "hf", **named(["X", "Y"]))
    with pytest.raises(UserError, match="labels X, Y.*no task here"):
        run(tmp_path / "hf", "tf2", tmp_path / "ours")
    assert not (tmp_path / "ours").exists()
    certificate = run(tmp_path / "hf", "huggingface", tmp_path / "again")
    assert certificate["task"]["labels"] == ["X", "Y"]


@pytest.mark.parametrize(
    ("config", "kind", "labels"),
    [
        (named(["坏", "好", "中"]), "classification", ("坏", "好", "中")),
        (
            {
                **named(["卫生", "价格"]),
                "problem_type": "multi_label_classification",
            },
            "multi_label",
            ("卫生", "价格"),
        ),
        ({"num_labels": 1}, "regression", ()),
    ],
)
def test_sequence_classes(config, kind, labels, tmp_path):
    model = theirs("AlbertForSequenceClassification", tmp_path / "hf", **config)
    run(tmp_path / "hf", "tf2", tmp_path / "ours")
    predictor = Predictor(tmp_path / "ours")
    assert (predictor.task.kind, predictor.task.labels) == (kind, labels)
    with torch.no_grad():
        logits = model(row_of(predictor, TEXTS[0])).logits[0]
    if kind == "regression":
        (answer,) = predictor.score(TEXTS[:1])
        assert answer["score"] == pytest.approx(float(logits[0]), abs=2e-5)
        return
    squash = torch.sigmoid if kind == "multi_label" else torch.softmax
    expected = squash(logits, *([] if kind == "multi_label" else [-1]))
    (answer,) = predictor.classify(TEXTS[:1])
    np.testing.assert_allclose(
        [*answer["probabilities"].values()], expected.numpy(), atol=1e-5
    )


def test_answers_and_choices(tmp_path):
    model = theirs("AlbertForQuestionAnswering", tmp_path / "qa")
    run(tmp_path / "qa", "tf2", tmp_path / "ours_qa")
    predictor = Predictor(tmp_path / "ours_qa")
    (answer,) = predictor.answer([("天气如何", "今天天气很好")])
    row = row_of(predictor, "天气如何")
    text = row_of(predictor, "今天天气很好")[:, 1:]
    with torch.no_grad():
        outputs = model(
            torch.cat([row, text], 1),
            token_type_ids=torch.cat(
                [torch.zeros_like(row), torch.ones_like(text)], 1
            ),
        )
    start = int(answer["start"])
    end = start + len(answer["answer"]) - 1
    first = row.shape[1]
    score = outputs.start_logits[0, first + start]
    score += outputs.end_logits[0, first + end]
    assert answer["n_best"][0]["score"] == pytest.approx(float(score), abs=3e-5)

    theirs("AlbertForMultipleChoice", tmp_path / "choice")
    certificate = run(tmp_path / "choice", "tf2", tmp_path / "ours_choice")
    assert certificate["task"]["kind"] == "choice"
    (answer,) = Predictor(tmp_path / "ours_choice").choose(
        [("今天天气很好", "如何", ["很好", "很坏"])]
    )
    assert len(answer["probabilities"]) == 2


def test_their_pipelines_answer_alike(tmp_path):
    """Classes, several labels, scores and tags, in one test."""

    def pipeline(task, name):
        folder = tuned_model(name, tmp_path / name, layout="google")
        run(folder, "huggingface", tmp_path / f"{name}_hf")
        made = transformers.pipeline(task, model=str(tmp_path / f"{name}_hf"))
        assert type(made.tokenizer).__name__.startswith("Bert")
        return made, ask(folder, name), Predictor(folder)

    text_class = "text-classification"
    made, expected, _ = pipeline(text_class, "tnews")
    for answer, ours in zip(
        made(TEXTS, truncation=True), expected, strict=True
    ):
        assert answer["label"] == ours["label"]
        assert answer["score"] == pytest.approx(ours["probability"], abs=1e-5)

    made, expected, _ = pipeline(text_class, "multi_label")
    found = made(TEXTS, truncation=True, top_k=None)
    for answer, ours in zip(found, expected, strict=True):
        scores = {one["label"]: one["score"] for one in answer}
        assert scores == pytest.approx(ours["probabilities"], abs=1e-5)

    made, expected, _ = pipeline(text_class, "regression")
    for answer, ours in zip(
        made(TEXTS, truncation=True, function_to_apply="none"),
        expected,
        strict=True,
    ):
        assert answer["score"] == pytest.approx(ours["score"], abs=1e-5)

    made, _, predictor = pipeline("token-classification", "ner")
    text = "叶老桂去浙商银行"
    tags = made(text, ignore_labels=[])
    rows = predictor.tokenizer.tokenize(text)
    assert [tag["word"] for tag in tags] == rows.tokens
    assert {tag["entity"] for tag in tags} <= set(predictor.task.labels)
    # Where their best tag of each token is a path, it is ours.
    entities = predictor.tag([text])[0]["entities"]
    for entity in entities:
        (first,) = [t for t in tags if t["start"] == entity["start"]]
        assert first["entity"] == f"B-{entity['type']}" or entity[
            "probability"
        ] < max(t["score"] for t in tags)


def test_their_question_answering_answers_alike(tmp_path):
    """transformers 5 has no pipeline for it: tokenizer and model, then."""
    folder = tuned_model("cmrc2018", tmp_path / "run", layout="google")
    run(folder, "huggingface", tmp_path / "hf")
    name = str(tmp_path / "hf")
    tokenizer = transformers.AutoTokenizer.from_pretrained(name)
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(name)
    text = TEXTS[0]
    given = tokenizer("天气如何", text, return_tensors="pt")
    with torch.no_grad():
        outputs = model.eval()(**given)
    first = 2 + len("天气如何")
    scores = outputs.start_logits[0, first:-1, None]
    scores = torch.triu(scores + outputs.end_logits[0, None, first:-1])
    scores[scores == 0] = -torch.inf
    start, end = divmod(int(scores.argmax()), len(text))
    (ours,) = Predictor(folder).answer([("天气如何", text)])
    assert ours["answer"] == text[start : end + 1]
    assert ours["start"] == start
    assert ours["n_best"][0]["score"] == pytest.approx(
        float(scores.max()), abs=3e-5
    )


def test_files_named_directly(tmp_path):
    model = theirs(
        "AlbertForSequenceClassification", tmp_path / "hf", **named("ab")
    )
    folder = tmp_path / "hf"
    torch.save(model.state_dict(), folder / "x.pt")
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    for name in ("model.safetensors", "pytorch_model.bin", "x.pt"):
        found = read_weights(folder / name)
        assert found.files == (folder / name,)
        np.testing.assert_array_equal(
            found.task_arrays["output_weights"],
            model.classifier.weight.detach().numpy(),
        )
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match="x.pt has no config.json beside it"):
        read_weights(folder / "x.pt")


def test_sharded_safetensors(tmp_path):
    model = theirs("AlbertForPreTraining", tmp_path / "one")
    whole = read_weights(tmp_path / "one")
    folder = tmp_path / "parts"
    model.save_pretrained(folder, max_shard_size="10KB")
    assert not (folder / "model.safetensors").exists()
    for source in (folder, folder / "model.safetensors.index.json"):
        found = read_weights(source)
        assert len(found.files) > 1
        for name, array in whole.arrays.items():
            np.testing.assert_array_equal(found.arrays[name], array)
    found.files[0].unlink()
    with pytest.raises(UserError, match="not beside it: fetch all parts"):
        read_weights(folder)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../one/config.json"}}))
    with pytest.raises(UserError, match="not beside it"):
        read_weights(folder)


def test_a_folder_for_them_answers_here_too(tmp_path):
    folder = tuned_model("regression", tmp_path / "run", layout="google")
    run(folder, "huggingface", tmp_path / "hf")
    task = json.loads((tmp_path / "hf" / "task.json").read_text("utf-8"))
    assert (task["mean"], task["spread"]) == (0.0, 1.0)  # in the head now
    assert_same(ask(tmp_path / "hf", "regression"), ask(folder, "regression"))
