"""The HTTP service: answers, limits, and the page in a real browser."""

import asyncio
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import types
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import task_samples as samples

fastapi = pytest.importorskip("fastapi", reason="the extra `serve` is missing")
testclient = pytest.importorskip("fastapi.testclient", reason="needs httpx")

from albert_tf2.errors import UserError  # noqa: E402
from albert_tf2.prediction import page, service  # noqa: E402
from albert_tf2.prediction.predictor import Predictor  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from albert_tf2.checkpoints import save_pretrained
    from albert_tf2.model.albert import AlbertPretrainer

    folder = tmp_path_factory.mktemp("served")
    vocab_file = samples.write_vocab(folder)
    model = AlbertPretrainer(samples.small_config(vocab_file))
    return save_pretrained(model, folder / "model", vocab_file=vocab_file)


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


def tuned(name, folder, target, **facts):
    """Writes an untrained model of a task: its outputs are all we need."""
    from albert_tf2.finetuning import encoders
    from albert_tf2.tasks import base, registry

    task = registry.create(name, labels=facts.pop("labels", ()))
    for key in ("pairs", "types"):
        if key in facts:
            setattr(task, key, facts.pop(key))
    loaded = encoders.load_encoder(str(folder))
    encoders.save(
        target,
        model=encoders.build(task, loaded, seed=0),
        task=task,
        loaded=loaded,
        lengths=base.Lengths(max_seq_length=32, max_query_length=8),
        facts=facts,
    )
    return target


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


def test_the_page_says_everything_in_both_languages():
    english, chinese = page.TEXTS["en"], page.TEXTS["zh"]
    assert english.keys() == chinese.keys()
    for key, text in english.items():
        assert text.count("{}") == chinese[key].count("{}"), key
    said = set(re.findall(r'say\("(\w+)"', page.SCRIPT))
    said |= set(re.findall(r'\b[abc]: "(\w+)"', page.SCRIPT))
    said |= set(re.findall(r"^  (\w+): \{", page.SCRIPT, re.M))
    said |= set(re.findall(r'\? "(second)"', page.SCRIPT))
    assert said == english.keys()


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


def ask_the_page(tmp_path, language, answers):
    """Returns what the page shows, and what after its language's button."""
    script, given = tmp_path / "page.js", tmp_path / "answers.json"
    script.write_text(page.SCRIPT, "utf-8")
    given.write_text(json.dumps(answers), "utf-8")
    program = Path(__file__).with_name("fake_page.js")
    command = ["node", program, script, language, given]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(not shutil.which("node"), reason="no node to run page.js")
def test_the_page_speaks_the_browsers_language(tmp_path):
    answers = {
        "/info": [200, {"task": None, "routes": ["fill_mask", "similarity"]}],
        "/similarity": [200, [0.5]],
        "hash": "#mode=similarity&a=甲&b=乙",
    }
    chinese, english = ask_the_page(tmp_path, "zh-CN", answers)
    assert (chinese["lang"], english["lang"]) == ("zh", "en")
    assert chinese["labels"] == ["填空 [MASK]", "句子相似度"]
    assert english["labels"] == ["Fill [MASK]", "Compare"]
    assert chinese["result"] == ["余弦相似度", "0.5000"]
    assert (chinese["model"], english["model"]) == (
        "预训练模型",
        "A pre-trained model",
    )
    assert (chinese["language"], english["language"]) == ("English", "中文")
    refused = [400, {"detail": "a text must have 1 to 40 characters"}]
    chinese, _ = ask_the_page(
        tmp_path, "zh-TW", {**answers, "/similarity": refused}
    )
    assert chinese["error"] == "文本长度须为 1 到 40 个字符"
    del answers["/similarity"]
    english, _ = ask_the_page(tmp_path, "de", answers)
    assert english["error"] == page.TEXTS["en"]["offline"]


@pytest.mark.skipif(not shutil.which("node"), reason="no node to run page.js")
def test_the_page_shows_an_example_of_the_models_own(tmp_path):
    info = {
        "task": "tnews",
        "routes": ["classify", "similarity", "embed"],
        "pairs": False,
        "labels": [f"l{i}" for i in range(21)],
        "example": ["今天天气很好"],
    }
    chinese, english = ask_the_page(
        tmp_path, "zh", {"/info": [200, info], "hash": ""}
    )
    assert chinese["labels"] == ["分类", "句子相似度"]
    assert chinese["knows"].startswith("标签：l0, l1, l2")
    assert english["knows"].endswith("l19, …")
    assert chinese["texts"] == ["今天天气很好", "", ""]
    assert chinese["hidden"] == ["second", "third"]
    assert chinese["example"] == page.TEXTS["zh"]["example"]
    assert english["example"] == page.TEXTS["en"]["example"]
    info |= {"task": "c3", "routes": ["choose", "similarity"], "labels": []}
    info["example"] = ["文", "问", ["甲", "乙"]]
    shown, _ = ask_the_page(tmp_path, "en", {"/info": [200, info], "hash": ""})
    assert shown["texts"] == ["文", "问", "甲\n乙"] and not shown["hidden"]
    link = urllib.parse.urlencode(
        {"mode": "choose", "a": "文", "b": "问", "c": "甲\n乙"}
    )
    answers = {
        "/info": [200, info],
        "/choose": [200, [{"probabilities": [0.25, 0.75]}]],
        "hash": f"#{link}",
    }
    shown, _ = ask_the_page(tmp_path, "en", answers)
    assert shown["result"] == ["甲", "0.2500", "乙", "0.7500"]
    assert shown["example"] == ""
    # A model of before an example was kept: that of the page.
    del info["example"]
    shown, _ = ask_the_page(tmp_path, "en", {"/info": [200, info], "hash": ""})
    assert shown["texts"][0] and shown["example"] == ""


def browser() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return next(filter(None, map(shutil.which, names)), None)


@pytest.mark.large
def test_page_in_a_browser(folder, predictor):
    """The command line serves; a headless browser fills in and reads."""
    program = browser()
    if program is None:
        pytest.skip("no chromium on this machine to show the page in")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [sys.executable, "-m", "albert_tf2.serve", "--model", str(folder)]
        + ["--port", str(port)]
    )
    try:
        _wait_for(f"{address}/info", process)
        texts = {"a": "今天天气很好", "b": "今天天气不错"}
        link = urllib.parse.urlencode({"mode": "similarity", **texts})
        with tempfile.TemporaryDirectory() as profile:
            shown = subprocess.run(
                [
                    program,
                    "--headless",
                    "--disable-gpu",
                    "--no-sandbox",
                    f"--user-data-dir={profile}",
                    "--dump-dom",
                    "--virtual-time-budget=20000",
                    f"{address}/#{link}",
                ],  # fmt: skip
                capture_output=True,
                text=True,
                timeout=120,
                env={**os.environ, "HOME": profile},
            ).stdout
    finally:
        process.terminate()
        process.wait(20)
    (cosine,) = predictor.similarity([texts["a"]], [texts["b"]])
    assert "A pre-trained model" in shown
    assert f"<td>{cosine:.4f}</td>" in shown, shown[-3000:]


def _wait_for(address: str, process: subprocess.Popen) -> None:
    for _ in range(240):
        assert process.poll() is None, "the service ended"
        try:
            urllib.request.urlopen(address, timeout=5)
            return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"{address} does not answer")
