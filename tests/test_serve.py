"""The HTTP service: answers, limits, and the page in a real browser."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

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


@pytest.fixture
def client(predictor):
    limits = service.Limits(max_body_bytes=2000, max_texts=3, max_characters=40)
    app = service.create_app(predictor, limits=limits)
    return testclient.TestClient(app, base_url="http://127.0.0.1")


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
    assert info == {"task": None, "routes": ["fill_mask", "similarity"]}


@pytest.mark.parametrize(
    "path, body, status, reason",
    [
        ("/similarity", {"pairs": [["甲"]]}, 400, "lists of two texts"),
        ("/similarity", {"pairs": []}, 400, "1 to 3 entries"),
        ("/similarity", {"pairs": [["甲", "乙"]] * 4}, 400, "1 to 3 entries"),
        ("/similarity", {"pairs": [["甲" * 41, "乙"]]}, 400, "1 to 40 char"),
        ("/similarity", {"pairs": [["甲", 7]]}, 400, "1 to 40 char"),
        ("/fill_mask", {"texts": ["甲"], "top_k": 5}, 400, "no [MASK]"),
        ("/fill_mask", {"texts": ["[MASK]"], "top_k": 10**9}, 400, "top_k"),
        ("/classify", {"texts": ["甲"]}, 400, "fine-tuned for class"),
        ("/similarity", {"pairs": "甲" * 900}, 413, "too large"),
    ],
)
def test_bad_requests(client, path, body, status, reason):
    answer = client.post(path, json=body)
    assert answer.status_code == status, answer.text
    assert reason in answer.json()["detail"]


def test_what_is_not_served(client):
    assert client.get("/etc/passwd").status_code == 404
    assert client.get("/..%2f..%2fetc/passwd").status_code == 404
    assert client.get("/docs").status_code == 404
    assert client.post("/similarity", content="[").status_code == 422
    foreign = client.get("/info", headers={"host": "evil.example"})
    assert foreign.status_code == 400


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
    said |= set(re.findall(r'\b[ab]: "(\w+)"', page.SCRIPT))
    said |= set(re.findall(r"^  (\w+): \{", page.SCRIPT, re.M))
    said |= set(re.findall(r'\? "(second)"', page.SCRIPT))
    assert said == english.keys()


def test_refusals_that_the_page_can_cause_are_known(client, predictor):
    reasons = []
    for path, body in (
        ("/similarity", {"pairs": [["甲" * 41, "乙"]]}),
        ("/similarity", {"pairs": [[" ", "乙"]]}),
        ("/similarity", {"pairs": [["甲" * 2000, "乙"]]}),
        ("/fill_mask", {"texts": ["甲"]}),
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
