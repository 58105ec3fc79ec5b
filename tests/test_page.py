"""The page of the service: both languages, and real browsers."""

import base64
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("warm_python")

pytest.importorskip("fastapi", reason="the extra `serve` is missing")

from toy_models import tuned, write_pretrained  # noqa: E402

from albert_tf2.prediction import connections, page, service  # noqa: E402
from albert_tf2.prediction.predictor import Predictor  # noqa: E402

KEY = "element-6066-11e4-a52e-4f735466cecf"  # of the WebDriver standard


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


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_pretrained(tmp_path_factory.mktemp("shown"))


@contextlib.contextmanager
def served(model):
    """Serves a model from a thread; gives the address."""
    limits = service.Limits(drain_seconds=1)
    running = service.Service(model, limits=limits)
    listener = connections.listen("127.0.0.1", 0)
    server = connections.server(running.app, connections.Room(limits))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        assert running.batcher.close(20)


class Browser:
    """Headless Chromium, driven as the WebDriver standard says."""

    def __init__(self, folder, language):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.process = subprocess.Popen(
            ["chromedriver", f"--port={port}"],
            stdout=subprocess.DEVNULL,
            env={**os.environ, "HOME": str(folder), "LANGUAGE": language},
        )
        self.address = f"http://127.0.0.1:{port}"
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu"]
        arguments += [f"--lang={language}", f"--user-data-dir={folder}"]
        options = {
            "args": arguments,
            "prefs": {"intl.accept_languages": language},
        }
        for _ in range(100):
            with contextlib.suppress(OSError):
                if self._call("GET", "/status")["ready"]:
                    break
            time.sleep(0.1)
        capabilities = {"alwaysMatch": {"goog:chromeOptions": options}}
        made = self._call("POST", "/session", capabilities=capabilities)
        self.address += f"/session/{made['sessionId']}"

    def _call(self, method, path, **body):
        data = json.dumps(body).encode() if method == "POST" else None
        request = urllib.request.Request(
            self.address + path, data, method=method
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def visit(self, address):
        self._call("POST", "/url", url=address)

    def ask(self, script):
        return self._call("POST", "/execute/sync", script=script, args=[])

    def click(self, selector):
        found = self._call(
            "POST", "/element", using="css selector", value=selector
        )
        self._call("POST", f"/element/{found[KEY]}/click")

    def wait_for(self, script):
        for _ in range(200):
            if found := self.ask(script):
                return found
            time.sleep(0.1)
        raise AssertionError(f"never so: {script}")

    def picture(self, path):
        path.write_bytes(base64.b64decode(self._call("GET", "/screenshot")))

    def close(self):
        with contextlib.suppress(OSError):
            self._call("DELETE", "")
        self.process.terminate()
        self.process.wait(20)


@pytest.fixture
def browse(tmp_path):
    """Starts browsers in a language, and ends them."""
    if not (shutil.which("chromedriver") and shutil.which("chromium")):
        pytest.skip("no chromium and chromedriver to show the page in")
    started = []

    def start(language):
        profile = tmp_path / f"profile{len(started)}"
        profile.mkdir()
        started.append(Browser(profile, language))
        return started[-1]

    yield start
    for one in started:
        one.close()


SHOWN = """
const text = (id) => document.getElementById(id).textContent;
const value = (id) => document.getElementById(id).value;
const seen = (id) => document.getElementById(id).offsetHeight > 0;
return {
  lang: document.documentElement.lang, model: text("model"),
  labels: text("labels"), example: seen("example") && text("example"),
  a: value("a"), b: seen("second") && value("b"),
  c: seen("third") && value("c"), go: text("go"), error: text("error"),
  rows: [...document.querySelectorAll("#result td")].map(
    (cell) => cell.textContent).filter((t) => t),
};
"""
READY = "return !document.getElementById('go').disabled"
DONE = READY + " && document.querySelectorAll('#result td').length > 0"


@pytest.mark.large
def test_a_classifier_in_a_browser(folder, tmp_path, browse):
    """Its task, its labels and a row of its training, in both languages."""
    facts = {"labels": ("天气", "吃饭"), "pairs": True}
    facts["example"] = ["今天天气很好", "今天天气不错"]
    model = Predictor(tuned("classification", folder, tmp_path / "m", **facts))
    (found,) = model.classify([tuple(facts["example"])])
    with served(model) as address:
        browser = browse("zh-CN")
        browser.visit(address)
        browser.wait_for(READY)
        shown = browser.ask(SHOWN)
        assert (shown["lang"], shown["go"]) == ("zh", "运行")
        assert shown["model"] == "微调模型，任务：classification"
        assert shown["labels"] == "标签：天气, 吃饭"
        assert shown["example"] == page.TEXTS["zh"]["example"]
        assert [shown["a"], shown["b"]] == facts["example"]
        assert shown["c"] is False
        browser.click("#go")
        browser.wait_for(DONE)
        expected = {
            label: f"{probability:.4f}"
            for label, probability in found["probabilities"].items()
        }
        rows = browser.ask(SHOWN)["rows"]
        assert dict(zip(rows[::2], rows[1::2], strict=True)) == expected
        browser.picture(tmp_path / "zh.png")
        assert (tmp_path / "zh.png").stat().st_size > 5_000
        browser.click("#language")
        shown = browser.ask(SHOWN)
        assert (shown["lang"], shown["go"]) == ("en", "Run")
        assert shown["labels"] == "It knows: 天气, 吃饭"
        assert shown["example"] == page.TEXTS["en"]["example"]
        # What the service refuses is told in the page's language.
        browser.click("#language")
        browser.ask("document.getElementById('a').value = ' '; return 0")
        browser.click("#go")
        browser.wait_for("return document.getElementById('error').textContent")
        assert browser.ask(SHOWN)["error"] == "文本长度须为 1 到 5000 个字符"


@pytest.mark.large
def test_choices_and_masks_in_a_browser(folder, tmp_path, browse):
    chooser = Predictor(
        tuned(
            "c3",
            folder,
            tmp_path / "m",
            example=["今天天气很好", "天气？", ["好", "坏"]],
        )
    )
    browser = browse("en-GB")
    with served(chooser) as address:
        browser.visit(address)
        browser.wait_for(READY)
        shown = browser.ask(SHOWN)
        assert shown["lang"] == "en"
        assert [shown["a"], shown["b"], shown["c"]] == [
            *("今天天气很好", "天气？", "好\n坏")
        ]
        browser.click("#go")
        browser.wait_for(DONE)
        assert browser.ask(SHOWN)["rows"][::2] == ["好", "坏"]
    with served(Predictor(folder)) as address:
        link = urllib.parse.urlencode({"mode": "fill_mask", "a": "北[MASK]"})
        browser.visit(f"{address}/#{link}")
        browser.wait_for(DONE)
        shown = browser.ask(SHOWN)
        assert shown["model"] == "A pre-trained model"
        assert len(shown["rows"]) == 10 and shown["labels"] == ""


@pytest.mark.large
def test_the_command_in_a_browser(folder, browse):
    process = subprocess.Popen(
        [sys.executable, "-m", "albert_tf2.serve", "--model", str(folder)]
        + ["--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        address = process.stdout.readline().strip()
        texts = {"a": "今天天气很好", "b": "今天天气不错"}
        link = urllib.parse.urlencode({"mode": "similarity", **texts})
        browser = browse("en")
        browser.visit(f"{address}#{link}")
        browser.wait_for(DONE)
        shown = browser.ask(SHOWN)
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.communicate()
    (cosine,) = Predictor(folder).similarity([texts["a"]], [texts["b"]])
    assert shown["rows"] == ["cosine", f"{cosine:.4f}"]
