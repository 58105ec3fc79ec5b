"""Models of the hubs, through the hubs' own libraries and local servers."""

import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import fake_hub
import numpy as np
import pytest

from albert_tf2 import UserError
from albert_tf2.checkpoints import huggingface_card, repositories
from albert_tf2.checkpoints.weights import Weights
from albert_tf2.tasks import base

FILES = {
    "config.json": b"{}",
    "vocab.txt": b"[PAD]\n",
    "model.safetensors": b"weights",
    "pytorch_model.bin": b"the same, pickled",
    "logo.png": b"picture",
}
# What a user would type, without the seconds that TensorFlow takes.
FETCH = """
import sys
from albert_tf2 import command_line
from albert_tf2.checkpoints import download
command_line.run(lambda _: print(download.local_path(sys.argv[1])))
"""


@pytest.fixture
def hub():
    pytest.importorskip("huggingface_hub")
    with fake_hub.running() as found:
        yield found


def start(tmp_path, *command, **variables):
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("HF_")},
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
        **variables,
    }
    return subprocess.run(
        [sys.executable, *command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def fetch(tmp_path, address, **variables):
    return start(tmp_path, "-c", FETCH, address, **variables)


def held(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def test_a_repository_is_fetched_once_and_then_works_offline(hub, tmp_path):
    hub.repositories["me/albert"] = FILES
    first = fetch(tmp_path, "hf:me/albert", HF_ENDPOINT=hub.url)
    assert first.returncode == 0, first.stderr
    # What a model is made of, and nothing pickled where it is not needed.
    wanted = ("config.json", "vocab.txt", "model.safetensors")
    assert held(first.stdout.strip()) == {name: FILES[name] for name in wanted}
    again = fetch(tmp_path, "hf:me/albert", HF_HUB_OFFLINE="1")
    assert again.stdout == first.stdout, again.stderr
    of_commit = fetch(
        tmp_path, f"hf:me/albert@{fake_hub.COMMIT}", HF_ENDPOINT=hub.url
    )
    assert of_commit.stdout == first.stdout, of_commit.stderr


def test_pickled_weights_are_fetched_where_there_are_no_others(hub, tmp_path):
    files = {n: c for n, c in FILES.items() if n != "model.safetensors"}
    hub.repositories["me/old"] = files
    run = fetch(tmp_path, "hf:me/old", HF_ENDPOINT=hub.url)
    assert run.returncode == 0, run.stderr
    assert "pytorch_model.bin" in held(run.stdout.strip())


@pytest.mark.parametrize(
    "address, variables, told",
    [
        ("hf:me/albert", {}, "me/albert"),
        ("hf:me/there@v9", {}, "check the name"),
        ("hf:me/there", {"HF_ENDPOINT": "http://127.0.0.1:9"}, "HF_ENDPOINT"),
        ("hf:me/there", {"HF_HUB_OFFLINE": "1"}, "unset HF_HUB_OFFLINE"),
        ("hf:albert", {}, "write hf:owner/name"),
        ("hf:me/a/b", {}, "write hf:owner/name"),
        ("kaggle:me/albert", {}, "kaggle:owner/model/framework/variation"),
    ],
)
def test_what_cannot_be_fetched_is_one_sentence(
    hub, tmp_path, address, variables, told
):
    hub.repositories["me/there"] = FILES
    run = fetch(tmp_path, address, **({"HF_ENDPOINT": hub.url} | variables))
    assert run.returncode == 2, run.stderr
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ") and address in last and told in last
    assert "Traceback" not in run.stderr


def test_other_sources_are_left_as_they_are(tmp_path):
    for source in ("albert_tiny_zh", str(tmp_path), "https://x.example/a.zip"):
        assert repositories.here(source) == source
        assert not repositories.is_address(source)


class Kaggle(http.server.BaseHTTPRequestHandler):
    """What kagglehub asks of Kaggle, for one model."""

    asked: list = []

    def log_message(self, *args):
        pass

    def do_POST(self):
        length = int(self.headers["Content-Length"] or 0)
        asked = json.loads(self.rfile.read(length) or "{}")
        call = self.path.rsplit("/", 1)[-1]
        self.asked.append(call)
        if asked.get("modelSlug") != "albert":
            body, status = b'{"error": "no such model"}', 404
        elif call == "GetModelInstance":
            body, status = b'{"versionNumber": 3}', 200
        elif call == "ListModelInstanceVersionFiles":
            names = [{"name": name} for name in ("vocab.txt", "config.json")]
            body, status = json.dumps({"files": names}).encode(), 200
        else:
            body, status = FILES[asked["path"]], 200
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def kaggle(monkeypatch, tmp_path):
    """Serves a model where kagglehub's own tests look for one."""
    pytest.importorskip("kagglehub")
    try:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 7777), Kaggle)
    except OSError:
        pytest.skip("port 7777 is in use")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "TEST")
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "kaggle"))
    yield server
    server.shutdown()
    server.server_close()


def test_a_model_of_kaggle_is_fetched_once(kaggle, tmp_path):
    Kaggle.asked.clear()
    address = "kaggle:me/albert/tensorFlow2/tiny"
    folder = repositories.here(address)
    assert held(folder) == {n: FILES[n] for n in ("vocab.txt", "config.json")}
    calls = len(Kaggle.asked)
    assert repositories.here(f"{address}/3") == folder
    assert len(Kaggle.asked) == calls
    with pytest.raises(UserError, match="kaggle:me/bert.*check the name"):
        repositories.here("kaggle:me/bert/tensorFlow2/tiny/1")


@pytest.mark.parametrize(
    "address, token, told",
    [
        ("kaggle:me/a/b/c", "x", "takes hf:owner/name"),
        ("hf:me/a@v1", "x", "without @v1"),
        ("hf:me", "x", "write hf:owner/name"),
        ("hf:me/a", "", "set HF_TOKEN"),
    ],
)
def test_a_push_that_cannot_be_is_refused_at_once(
    monkeypatch, tmp_path, address, token, told
):
    library = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(library, "get_token", lambda: token)
    with pytest.raises(UserError, match=told):
        repositories.check_push(address)


@pytest.fixture
def pushed(hub, monkeypatch, tmp_path, tiny_config):
    """Gives a folder, and a function that converts into it and pushes."""
    pytest.importorskip("transformers", reason="[huggingface]")
    import huggingface_hub

    from albert_tf2 import AlbertPretrainer, convert, save_pretrained

    # The library has read its variables already.
    monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", hub.url)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", fake_hub.TOKEN)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens += [chr(0x4E00 + i) for i in range(tiny_config.vocab_size - 5)]
    (tmp_path / "vocab.txt").write_text("\n".join(tokens) + "\n", "utf-8")
    source = save_pretrained(
        AlbertPretrainer(tiny_config.replace(layout="google")),
        tmp_path / "source",
        vocab_file=tmp_path / "vocab.txt",
    )
    command = ["--input", str(source), "--output", str(tmp_path / "out")]
    command += ["--to", "huggingface", "--push", "hf:me/tiny", "--private"]
    return tmp_path / "out", lambda *more: convert.main([*command, *more])


def test_push_uploads_the_folder_with_its_card(pushed, hub, capsys):
    folder, convert = pushed
    assert convert() == 0
    told = capsys.readouterr().out
    assert f"pushed to hf:me/tiny: {hub.url}/me/tiny/commit/" in told
    files = hub.repositories["me/tiny"]
    assert files == {p.name: p.read_bytes() for p in folder.iterdir()}
    assert {"config.json", "model.safetensors", "vocab.txt"} < {*files}
    assert {"tokenizer_config.json", "conversion.json"} < {*files}
    assert hub.private == {"me/tiny"} and len(hub.messages) == 1
    card = files["README.md"].decode()
    assert "pipeline_tag: fill-mask" in card
    assert "`AlbertForPreTraining`" in card


@pytest.mark.parametrize(
    "class_name, task, lines",
    [
        ("AlbertForMultipleChoice", {"task": "c3", "kind": "choice"},
         ["pipeline_tag: multiple-choice", "Fine-tuned for c3 (choice)."]),
        ("BertForSequenceClassification",
         {"task": "mood", "kind": "classification", "labels": ["坏", "好"]},
         ['pipeline("text-classification", name)',
          "Fine-tuned for mood (classification). Labels: `坏`, `好`."]),
        ("AlbertModel",
         {"task": "sentence_vectors", "kind": base.VECTORS, "pooling": "mean"},
         ["library_name: sentence-transformers", "SentenceTransformer(name)"]),
    ],
)  # fmt: skip
def test_a_card_says_what_the_model_is_for(
    tiny_config, class_name, task, lines
):
    found = Weights(
        tiny_config,
        {},
        task_arrays={"head": np.zeros(1)},
        task=task,
        task_kind=task["kind"],
        task_labels=tuple(task.get("labels", ())),
    )
    text = huggingface_card.card(found, class_name)
    for line in lines:
        assert line in text
    assert all(block.count("\n") for block in text.split("```"))


def test_a_refused_push_leaves_the_folder(pushed, hub, monkeypatch):
    folder, convert = pushed
    monkeypatch.setenv("HF_TOKEN", "hf_of_someone_else")
    with pytest.raises(UserError, match="hf:me/tiny .*the folder is whole"):
        convert()
    assert (folder / "model.safetensors").is_file()
    assert not hub.messages
