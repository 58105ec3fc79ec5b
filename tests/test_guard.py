"""Under which names the service may be called, and by whose pages."""

import re
import socket

import pytest

for needed in ("fastapi", "uvicorn", "pydantic", "httpx"):
    pytest.importorskip(needed, reason="the extra `serve` is missing")

from fake_service import FakePredictor, embedded  # noqa: E402
from fastapi.testclient import TestClient  # noqa: E402

from albert_tf2.prediction import messages, metrics  # noqa: E402
from albert_tf2.prediction.guard import (  # noqa: E402
    Names,
    is_loopback,
    to_visit,
)
from albert_tf2.prediction.service import Limits, Service  # noqa: E402

ALWAYS = ["localhost", "LOCALHOST:8501", "127.0.0.1", "127.0.0.1:1", "[::1]"]
NEVER = [
    *("", "evil.example", "localhost.evil.example", "evil.example:8501"),
    *("0.0.0.0", "0.0.0.0:8501", "[::]", "[::]:8501", "[::ffff:0.0.0.0]"),
    *("evil@localhost", "localhost/", "localhost:99999", "localhost:x"),
    *("127.0.0.1.evil.example", "localhost, evil", "[::1", "::1:8501", "[]"),
    *("0x7f.1", "127.1", "[::1]evil", "localhost:", " localhost"),
]
NETWORK = ["192.168.1.5", "10.0.0.1:8501", "[fe80::1]:8501", "[2001:db8::1]"]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.0.0.2"])
def test_on_loopback_only_loopback_is_a_name(host):
    names = Names(host)
    assert is_loopback(host)
    assert [name for name in ALWAYS if not names.knows(name)] == []
    assert [name for name in NEVER + NETWORK if names.knows(name)] == []


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "box.lan"])
def test_on_the_network_addresses_are_names_and_foreign_names_are_not(host):
    names = Names(host, ["models.example"])
    assert not is_loopback(host)
    known = [*ALWAYS, *NETWORK, "models.example", "MODELS.example:443"]
    known.append(socket.gethostname())
    assert [name for name in known if not names.knows(name)] == []
    assert [name for name in NEVER if names.knows(name)] == []
    assert names.knows("box.lan") == (host == "box.lan")


def test_what_is_printed_can_be_visited():
    assert [to_visit(host) for host in ("0.0.0.0", "::", "::1", "box.lan")] == [
        *("127.0.0.1", "::1", "::1", "box.lan")
    ]


@pytest.fixture(scope="module")
def client():
    service = Service(FakePredictor(), limits=Limits(body_bytes=5_000))
    app = TestClient(service.app, base_url="http://127.0.0.1:8501")
    app.service = service
    yield app
    assert service.batcher.close(5)


@pytest.mark.parametrize(
    "headers, status",
    [
        ({}, 200),
        ({"origin": "http://127.0.0.1:8501"}, 200),
        ({"origin": "https://127.0.0.1:8501"}, 200),
        ({"origin": "http://127.0.0.1:9000"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://localhost:8501"}, 403),
        ({"host": "evil.example", "origin": "http://evil.example"}, 421),
        ({"host": "0.0.0.0:8501", "origin": "http://0.0.0.0:8501"}, 421),
        ({"host": "[::1]:8501", "origin": "http://[::1]:8501"}, 200),
    ],
)
def test_foreign_pages_are_refused(client, headers, status):
    answer = client.post("/embed", json={"texts": ["甲"]}, headers=headers)
    assert answer.status_code == status
    assert answer.headers["x-content-type-options"] == "nosniff"
    if status != 200:
        assert list(answer.json()) == ["detail"]


@pytest.mark.parametrize("announced", [True, False])
def test_bodies_have_a_size(client, announced):
    body = b'{"texts": ["' + b"a" * 6_000 + b'"]}'
    content = body if announced else iter([body[:3_000], body[3_000:]])
    answer = client.post("/embed", content=content)
    assert answer.status_code == 413
    assert answer.json() == {
        "detail": "the request is too large: at most 5000 bytes"
    }
    assert client.post("/embed", json={"texts": ["甲"]}).json() == [
        embedded("甲")
    ]


@pytest.mark.parametrize(
    "body, reason",
    [
        (b"", "the body must be a JSON object"),
        (b"{", "the body is no JSON"),
        (b"[]", "the body must be a JSON object"),
        (b'"texts"', "the body must be a JSON object"),
        (b"\xff\xfe", "the body"),
        (b"[" * 4_000, "the body"),
        (b'{"texts": ' + b"[" * 4_000, "the body"),
        (b'{"texts": [' + b"9" * 4_900 + b"]}", "the body|must be a string"),
        (b'{"texts": ["\\ud800"]}', "half a character"),
        (b'{"texts": ["\xed\xa0\x80"]}', "half a character"),
        (b'{"texts": "text"}', "`texts` must be a list of 1 to 64 entries"),
        (b'{"texts": []}', "`texts` must be a list of 1 to 64 entries"),
        (b'{"texts": [5]}', r"`texts\[0\]` must be a string. Received: 5"),
        (b'{"texts": ["a", null]}', r"`texts\[1\]` must be a string"),
        (b'{"texts": [" \\n"]}', "a text must have 1 to 5000 characters"),
        (b'{"texts": [""]}', "a text must have 1 to 5000 characters"),
        (b"{}", "`texts` is missing"),
        (
            b'{"texts": ["a"], "poling": "cls"}',
            "the request: unknown key `poling`; did you mean `pooling`",
        ),
        (b'{"texts": ["a"], "pooling": "max"}', "must be 'mean', 'cls' or"),
        (b'{"texts": ["a"], "pooling": 1}', "must be 'mean', 'cls' or"),
    ],
)
def test_every_fault_is_one_sentence(client, body, reason):
    answer = client.post(
        "/embed", content=body, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 400
    (detail,) = answer.json().values()
    assert re.search(reason, detail), detail
    assert "\n" not in detail and len(detail) < 300


def test_costs_are_limited(client):
    def ask(path, body):
        answer = client.post(path, json=body)
        return answer.status_code, answer.json()

    masked = {"texts": ["[MASK]" * 32] * 4, "top_k": 15}
    assert ask("/fill_mask", masked)[0] == 200
    status, answer = ask("/fill_mask", {**masked, "top_k": 16})
    assert status == 400 and "2000 proposals" in answer["detail"]
    status, answer = ask("/fill_mask", {"texts": ["[MASK]" * 129]})
    assert status == 400 and "may hold 128 [MASK]. R" in answer["detail"]
    status, answer = ask("/fill_mask", {"texts": ["[MASK]"], "top_k": 51})
    assert status == 400 and "`top_k` must be from 1 to 50" in answer["detail"]
    status, answer = ask("/fill_mask", {"texts": ["[MASK]"], "top_k": 2.0})
    assert status == 400 and "`top_k` must be from 1 to 50" in answer["detail"]


def test_every_answer_that_is_none_has_one_form(client):
    for method, path, status in (
        ("GET", "/nowhere", 404),
        ("GET", "/embed", 405),
        ("POST", "/health", 405),
        ("GET", "/docs", 404),
        ("GET", "/..%2f..%2fetc/passwd", 404),
    ):
        answer = client.request(method, path)
        assert (answer.status_code, list(answer.json())) == (status, ["detail"])
    answer = client.post("/embed", json={"texts": ["坏"]})
    assert answer.status_code == 400
    assert answer.json() == {"detail": "a bad text"}
    quiet = TestClient(
        client.service.app,
        base_url="http://localhost",
        raise_server_exceptions=False,
    )
    answer = quiet.post("/embed", json={"texts": ["错"]})
    assert answer.status_code == 500
    assert answer.json() == {"detail": "the service failed: its log says where"}


def test_openapi_tells_what_can_be_asked(client):
    api = client.get("/openapi.json").json()
    assert {"/embed", "/choose", "/fill_mask", "/health"} <= set(api["paths"])
    schema = api["components"]["schemas"]["EmbeddedTexts"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["texts"]["maxItems"] == 64
    responses = api["paths"]["/embed"]["post"]["responses"]
    assert set(responses) == {"200", "4XX", "5XX"}


def test_metrics_do_not_grow_with_what_clients_send(client):
    def lines():
        text = client.get("/metrics").text
        assert text.endswith("\n")
        return [line.rpartition(" ")[0] for line in text.splitlines()]

    client.get("/one")
    lines()  # is counted as well
    before = lines()
    for number in range(20):
        client.get(f"/{number}")
    assert len(lines()) == len(before)
    assert 'albert_requests_total{route="other",status="404"}' in before
    assert not any("/one" in line for line in before)


def test_a_body_may_be_as_large_as_is_allowed(client):
    most = client.service.limits.body_bytes
    body = b'{"texts": ["a"]}'
    for size, status in ((most, 200), (most + 1, 413)):
        answer = client.post(
            "/embed",
            content=body.ljust(size),
            headers={"content-type": "application/json"},
        )
        assert answer.status_code == status


def test_every_answer_carries_what_browsers_heed(client):
    for path in ("/", "/nowhere", "/info"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        policy = headers["content-security-policy"]
        assert "frame-ancestors 'none'" in policy


def test_a_text_costs_once_for_each_choice():
    assert messages.all_characters([("甲乙", "丙", ["丁", "戊己"])]) == 9
    assert messages.all_characters(["甲", ("乙", "丙丁")]) == 4


def test_types_are_strict():
    assert messages.MaskedTexts(texts=["[MASK]"], top_k=5).top_k == 5
    for top_k in ("5", 5.0, True):
        with pytest.raises(ValueError):
            messages.MaskedTexts(texts=["[MASK]"], top_k=top_k)


def test_buckets_hold_their_bounds_and_what_is_below():
    counted = metrics.Metrics()
    for items in (1, 2, 3):
        counted.computed(items, 0.1)
    lines = counted.text().splitlines()
    for bound, count in (("1", 1), ("2", 2), ("4", 3), ("+Inf", 3)):
        assert f'albert_batch_items_bucket{{le="{bound}"}} {count}' in lines
