"""The benchmark of the service: its table, its memory, and one real end."""

import contextlib
import importlib.util
import json
import os
import re
import socket
import sys
import time
from pathlib import Path

import pytest

for needed in ("fastapi", "uvicorn", "pydantic"):
    pytest.importorskip(needed, reason="the extra `serve` is missing")

HERE = Path(__file__).parent
PROGRAM = HERE.parent / "benchmarks" / "service_load.py"


@pytest.fixture
def benchmark(monkeypatch):
    spec = importlib.util.spec_from_file_location("service_load", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    return module


@pytest.fixture
def fake(benchmark, monkeypatch):
    command = (sys.executable, str(HERE / "fake_service.py"))
    monkeypatch.setattr(benchmark.Server, "command", command)
    return benchmark


def test_table(fake, capsys):
    flags = "--model none --route embed --seconds 0.15 --rounds 1"
    assert fake.main(flags.split()) == 0
    printed = capsys.readouterr().out
    rows = re.findall(
        r"^\| (batched|one by one) \| (\d+) \| (\d+)", printed, re.M
    )
    assert [row[:2] for row in rows] == [
        (name, clients)
        for clients in ("1", "8", "50")
        for name in ("batched", "one by one")
    ]
    assert all(int(rate) > 0 for _, _, rate in rows)
    passes = {
        (name, clients): float(texts)
        for name, clients, texts in re.findall(
            r"^\| ([a-z ]+) \| (\d+) (?:\| [\d.]+ ){4}\| ([\d.]+)",
            printed,
            re.M,
        )
    }
    assert passes["one by one", "50"] == 1.0 < passes["batched", "50"]
    assert re.search(r"50 clients: [\d.]+ x the requests of one", printed)


def test_memory(fake, capsys):
    assert (
        fake.main(["--model", "none", "--route", "embed", "--soak", "99"]) == 0
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].strip().startswith("99 requests: ")
    assert len(lines) == 11 and all(line.endswith(" MB") for line in lines)


@pytest.mark.large
def test_sigterm_in_the_middle_of_passes_that_take_seconds(benchmark, tmp_path):
    """TensorFlow computes, much waits, bodies are half sent: ten seconds."""
    model = benchmark.write_model(tmp_path, "albert_tiny_zh")
    server = benchmark.Server(str(model))
    texts = ["今天天气很好" * 120] * 64
    body = json.dumps({"texts": texts}, ensure_ascii=False).encode()
    sent = (
        b"POST /classify HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
        % (len(body), body)
    )
    with contextlib.ExitStack() as stack:
        address = ("127.0.0.1", server.port)
        clients = [
            stack.enter_context(socket.create_connection(address, 20))
            for _ in range(20)
        ]
        for number, client in enumerate(clients):
            client.sendall(sent[:-5] if number % 2 else sent)
        time.sleep(0.5)
        began = time.monotonic()
        server.process.terminate()
        assert server.process.wait(60) == 0
        assert time.monotonic() - began < 10
        said = {client.recv(12) for client in clients}
    assert said <= {b"HTTP/1.1 200", b"HTTP/1.1 503"}
