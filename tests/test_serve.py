"""The HTTP service over a real model: answers, limits, what it says of both."""

import asyncio
import json
import re
import types

import numpy as np
import pytest

fastapi = pytest.importorskip("fastapi", reason="the extra `serve` is missing")
testclient = pytest.importorskip("fastapi.testclient", reason="needs httpx")

from toy_models import tuned, write_pretrained  # noqa: E402

from albert_tf2.errors import UserError  # noqa: E402
from albert_tf2.prediction import page, service  # noqa: E402
from albert_tf2.prediction.predictor import Predictor  # noqa: E402
from albert_tf2.prediction.tuned_model import TunedModel  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_pretrained(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def predictor(folder):
    return Predictor(folder)


@pytest.fixture(scope="module")
def client(predictor):
    served = service.Service(
        predictor,
    )
    yield testclient.TestClient(served.app, base_url="http://127.0.0.1")
    assert served.batcher.close(5)


def test_similarity_is_the_predictors(client, predictor):
    pairs = [["今天天气很好", "今天天气不错"]]
    answer = client.post("/similarity", json={"pairs": pairs})
    assert answer.status_code == 200
    expected = predictor.similarity(*map(list, zip(*pairs, strict=True)))
    assert answer.json() == [pytest.approx(float(expected[0]), abs=1e-5)]


def test_fill_mask_and_info(client):
    answer = client.post("/fill_mask", json={"texts": ["北[MASK]"], "top_k": 2})
    assert [len(masks) for masks in answer.json()[0]] == [2]
    info = client.get("/info").json()
    assert info["task"] is None
    assert info["routes"] == ["fill_mask", "similarity", "embed"]


@pytest.mark.parametrize(
    "path, body, status, reason",
    [
        ("/similarity", {"pairs": [["甲"]]}, 400, "list of two texts"),
        ("/similarity", {"pairs": []}, 400, "1 to 64 entries"),
        ("/similarity", {"pairs": [["甲", "乙"]] * 65}, 400, "1 to 64 entries"),
        ("/similarity", {"pairs": [["甲" * 5001, "乙"]]}, 400, "1 to 5000 ch"),
        ("/similarity", {"pairs": [["甲", 7]]}, 400, "must be a string. Rec"),
        ("/embed", {"texts": ["甲" * 5000] * 11}, 400, "50000 characters"),
        ("/fill_mask", {"texts": ["甲"], "top_k": 5}, 400, "no [MASK]"),
        ("/fill_mask", {"texts": ["[MASK]"], "top_k": 10**9}, 400, "top_k"),
        ("/classify", {"texts": ["甲"]}, 400, "fine-tuned for class"),
        ("/choose", {"questions": [{"text": "甲"}]}, 400, "question` is miss"),
        ("/similarity", {"pairs": "甲" * 90_000}, 413, "too large"),
    ],
)
def test_bad_requests(client, path, body, status, reason):
    answer = client.post(path, json=body)
    assert answer.status_code == status, answer.text
    assert reason in answer.json()["detail"]


@pytest.mark.parametrize(
    "kind, route",
    [
        ("classification", "classify"),
        ("multi_label", "classify"),
        ("regression", "score"),
        ("tagging", "tag"),
        ("span", "answer"),
        ("choice", "choose"),
    ],
)
def test_what_a_model_of_each_kind_is_asked(kind, route):
    task = types.SimpleNamespace(
        name="x", kind=kind, pairs=True, labels=["B-a"], types=("a",)
    )
    model = types.SimpleNamespace(
        task=task, fills_masks=False, example=lambda: ["甲", "乙"]
    )
    assert service.describe(model) == {
        "task": "x",
        "routes": [route, "similarity", "embed"],
        "pairs": True,
        "labels": ["a"],
        "example": ["甲", "乙"],
    }


@pytest.fixture
def serve():
    """Starts services, and ends them."""
    started = []

    def start(model):
        started.append(service.Service(model))
        started[-1].warm_up()
        return testclient.TestClient(
            started[-1].app, base_url="http://127.0.0.1"
        )

    yield start
    for served in started:
        assert served.batcher.close(5)


def test_a_classifier_shows_its_labels_and_a_row_of_its_training(
    folder, tmp_path, serve
):
    facts = {"labels": ("天气", "吃饭"), "pairs": False}
    facts["example"] = ["今天天气很好"]
    model = Predictor(tuned("classification", folder, tmp_path / "m", **facts))
    client = serve(model)
    assert client.get("/info").json() == {
        "task": "classification",
        "routes": ["classify", "similarity", "embed"],
        "pairs": False,
        "labels": ["天气", "吃饭"],
        "example": ["今天天气很好"],
    }
    texts = ["今天天气很好", "我喜欢妈妈做的汤"]
    answer = client.post("/classify", json={"texts": texts})
    assert answer.status_code == 200
    for found, expected in zip(
        answer.json(), model.classify(texts), strict=True
    ):
        assert found["id"] == expected["id"]
        assert found["label"] == expected["label"]
        assert found["probability"] == pytest.approx(
            expected["probability"], abs=1e-5
        )
    pairs = {"pairs": [["今天", "天气"]]}
    answer = client.post("/classify", json=pairs)
    assert answer.status_code == 400
    assert "fine-tuned on single texts" in answer.json()["detail"]
    answer = client.post("/classify", json={"texts": texts, **pairs})
    assert answer.json() == {"detail": "give `texts` or `pairs`, one of them"}
    answer = client.post("/fill_mask", json={"texts": ["[MASK]"]})
    assert "masked-word head" in answer.json()["detail"]


def test_choices_and_numbers_of_common_passes(folder, tmp_path, serve):
    """What stood third in a pass is number 0 of its own request."""
    model = Predictor(tuned("c3", folder, tmp_path / "m"))
    client = serve(model)
    question = {"text": "今天天气很好", "question": "天气"}
    body = {"questions": [{**question, "choices": ["好", "坏"]}] * 2}
    found = client.post("/choose", json=body).json()
    (expected,) = model.choose([("今天天气很好", "天气", ["好", "坏"])])
    assert [answer["id"] for answer in found] == [0, 1]
    for answer in found:
        assert answer["choice"] == expected["choice"]
        assert answer["probabilities"] == pytest.approx(
            expected["probabilities"], abs=1e-5
        )
    many = {"questions": [{**question, "choices": ["好"] * 5}]}
    answer = client.post("/choose", json=many)
    assert "this model takes 2 to 4 choices" in answer.json()["detail"]
    known = [p for p, _ in page.REFUSALS if re.search(p, answer.text)]
    assert not known or answer.status_code == 400


def test_common_passes_answer_as_each_text_alone(folder, predictor):
    """Many clients at once get what each of them would get by itself."""
    texts = ["今天天气很好", "汤", "北京是中国首都" * 4, "花呗怎么还款"] * 6
    served = service.Service(predictor, wait_seconds=0.05)

    async def ask_all():
        ask = served.batcher.ask
        return await asyncio.gather(
            *(ask(("embed", "mean"), [t], length=len(t)) for t in texts),
            *(ask(("fill_mask", 3), [t + "[MASK]"], length=9) for t in texts),
        )

    found = asyncio.run(ask_all())
    assert served.batcher.close(5)
    passes = served.metrics.text().split("albert_batch_items_count ")[1]
    assert int(passes.split()[0]) < 20
    for text, (vector,), (masks,) in zip(
        texts, found[: len(texts)], found[len(texts) :], strict=True
    ):
        np.testing.assert_allclose(vector, predictor.embed(text)[0], atol=1e-5)
        (proposals,) = predictor.fill_mask(text + "[MASK]", top_k=3)
        assert [p["text"] for p in masks[0]] == [p["text"] for p in proposals]
        for proposal, expected in zip(masks[0], proposals, strict=True):
            assert proposal["probability"] == pytest.approx(
                expected["probability"], abs=1e-5
            )


def test_what_is_not_served(client):
    assert client.get("/etc/passwd").status_code == 404
    assert client.get("/..%2f..%2fetc/passwd").status_code == 404
    assert client.get("/docs").status_code == 404


def test_page_is_self_contained(client):
    shown = client.get("/")
    assert shown.headers["content-security-policy"].startswith("default-src")
    assert "http:" not in shown.text and "https:" not in shown.text
    for path in ("/page.js", "/page.css"):
        assert client.get(path).status_code == 200
        assert path in shown.text
    assert "innerHTML" not in client.get("/page.js").text


def test_refusals_that_the_page_can_cause_are_known(client, predictor):
    reasons = []
    for path, body in (
        ("/similarity", {"pairs": [["甲" * 5001, "乙"]]}),
        ("/similarity", {"pairs": [[" ", "乙"]]}),
        ("/similarity", {"pairs": [["甲" * 90_000, "乙"]]}),
        ("/fill_mask", {"texts": ["甲"]}),
        ("/fill_mask", {"texts": ["[MASK]" * 200]}),
        (
            "/choose",
            {
                "questions": [
                    {"text": "甲", "question": "乙", "choices": ["丙"]}
                ]
            },
        ),
    ):
        answer = client.post(path, json=body)
        assert answer.status_code in (400, 413)
        reasons.append(answer.json()["detail"])
    with pytest.raises(UserError) as error:
        predictor.fill_mask("甲" * 4000 + "[MASK]")
    for reason in [*reasons, str(error.value)]:
        known = [text for text, _ in page.REFUSALS if re.search(text, reason)]
        assert len(known) == 1, reason


@pytest.mark.parametrize(
    "kept, shown",
    [
        (["甲", "乙"], ["甲", "乙"]),
        (["文", "问", ["甲", "乙"]], ["文", "问", ["甲", "乙"]]),
        (None, []),
        ("甲", []),
        ({"a": 1}, []),
        ([5], []),
        (["甲", [5]], []),
    ],
)
def test_an_example_that_is_damaged_is_not_shown(tmp_path, kept, shown):
    model = TunedModel.__new__(TunedModel)
    model._folder = tmp_path
    (tmp_path / "task.json").write_text(json.dumps({"example": kept}))
    assert model.example() == shown
