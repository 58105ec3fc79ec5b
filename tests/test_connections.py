"""The service on real sockets, attacked: time, room, names, the end."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest

for needed in ("fastapi", "uvicorn", "pydantic"):
    pytest.importorskip(needed, reason="the extra `serve` is missing")

from fake_service import FakePredictor, embedded  # noqa: E402

from albert_tf2 import serve  # noqa: E402
from albert_tf2.errors import UserError  # noqa: E402
from albert_tf2.prediction import connections, service  # noqa: E402

HEADERS = b"Host: 127.0.0.1\r\nContent-Type: application/json\r\n"


def request(body, path="/embed", more=b""):
    """Returns the bytes of a POST."""
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    return (
        b"POST %b HTTP/1.1\r\n" % path.encode()
        + HEADERS
        + more
        + b"Content-Length: %d\r\n\r\n" % len(body)
        + body
    )


def embed(text):
    return request({"texts": [text]})


class Running:
    """A service in a thread of this process.

    Attributes:
        port: Where it listens, on 127.0.0.1.
        predictor: Its model.
    """

    def __init__(self, host="127.0.0.1", **limits):
        self.limits = service.Limits(**limits)
        self.predictor = FakePredictor()
        self.room = connections.Room(self.limits)
        self.service = service.Service(
            self.predictor, limits=self.limits, gauges=self.room.gauges
        )
        listener = connections.listen(host, 0)
        self.address = listener.getsockname()[:2]
        self.server = connections.server(self.service.app, self.room)
        self.thread = threading.Thread(
            target=self.server.run, kwargs={"sockets": [listener]}
        )
        self.thread.start()

    def connect(self):
        return socket.create_connection(self.address, timeout=10)

    def ask(self, sent):
        """Sends bytes and returns (status, JSON) of the first answer."""
        with self.connect() as client:
            client.sendall(sent)
            return answer_of(client)

    def stop(self):
        """Ends as after SIGTERM; returns the seconds it took."""
        began = time.monotonic()
        self.server.should_exit = True
        self.thread.join(20)
        assert not self.thread.is_alive()
        assert self.service.batcher.close(5)
        return time.monotonic() - began


@contextlib.contextmanager
def running(**limits):
    served = Running(**limits)
    try:
        yield served
    finally:
        served.stop()


def answer_of(client):
    """Reads one answer: its status and its JSON."""
    stream = client.makefile("rb")
    status = int(stream.readline().split()[1])
    length = 0
    while line := stream.readline().strip():
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return status, json.loads(stream.read(length))


def seconds_until_closed(client):
    """Returns when the other side ends the connection, and what it said."""
    began = time.monotonic()
    said = b""
    with contextlib.suppress(ConnectionError):
        while part := client.recv(65536):
            said += part
    return time.monotonic() - began, said


def wait_until(holds, seconds=10):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "never so"
        time.sleep(0.02)


def test_headers_that_do_not_come_are_not_waited_for():
    with running(header_seconds=0.6) as served:
        with served.connect() as silent, served.connect() as slow:
            began = time.monotonic()
            with contextlib.suppress(ConnectionError):
                for byte in b"POST /embed HTTP/1.1\r\nHost: 127.0.0.1":
                    slow.send(bytes([byte]))
                    time.sleep(0.02)
                    if time.monotonic() - began > 5:
                        break
            _, said = seconds_until_closed(slow)
            assert 0.5 < time.monotonic() - began < 4
            assert b"408" in said and b"within 0.6 s" in said
            assert b"408" in seconds_until_closed(silent)[1]
        # After an answer the time begins anew, for the next headers.
        with served.connect() as client:
            client.sendall(embed("今天"))
            assert answer_of(client) == (200, [embedded("今天")])
            time.sleep(0.3)
            client.sendall(embed("天气"))
            assert answer_of(client)[0] == 200
            client.sendall(b"POST /embed HTT")
            assert 0.4 < seconds_until_closed(client)[0] < 4


def test_a_body_that_does_not_come_is_not_waited_for():
    with running(body_seconds=0.3) as served:
        whole = embed("今天")
        with served.connect() as client:
            client.sendall(whole[:-4])
            began = time.monotonic()
            status, answer = answer_of(client)
            assert (status, time.monotonic() - began < 3) == (408, True)
            assert answer == {
                "detail": "the request did not arrive within 0.3 s"
            }
            assert not client.recv(1)
        assert served.ask(whole)[0] == 200


def test_work_that_takes_too_long_is_not_waited_for():
    with running(work_seconds=0.2) as served:
        status, answer = served.ask(embed("慢0.6"))
        assert status == 504 and "within 0.2 s" in answer["detail"]


def test_an_answer_that_is_not_taken_is_not_kept():
    with running(write_seconds=0.3, header_seconds=0.3) as served:
        body = {"texts": ["[MASK]" * 40], "top_k": 50}
        with served.connect() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            with contextlib.suppress(OSError):
                for _ in range(400):
                    client.sendall(request(body, "/fill_mask"))
            wait_until(lambda: "fill_mask" in served.service.metrics.text())
            wait_until(lambda: not served.room.open)


def test_a_body_without_an_end_is_not_read_to_it():
    with running(body_seconds=20) as served:
        began = time.monotonic()
        endless = b"8000\r\n" + b" " * 0x8000 + b"\r\n"
        sent = request(b"").replace(
            b"Content-Length: 0", b"Transfer-Encoding: chunked"
        )
        status, _ = served.ask(sent + endless * 9)
        assert status == 413 and time.monotonic() - began < 10


def test_a_full_queue_is_told_with_when_to_come_again():
    with running() as served:
        served.service.batcher._most_waiting = 1
        with served.connect() as busy, served.connect() as waiting:
            busy.sendall(embed("慢1"))
            wait_until(lambda: served.predictor.passes)
            waiting.sendall(embed("今天"))
            wait_until(lambda: served.service.batcher.waiting)
            with served.connect() as client:
                body, close = {"texts": ["天气"]}, b"Connection: close\r\n"
                client.sendall(request(body, more=close))
                _, said = seconds_until_closed(client)
            assert b" 503 " in said and b"retry-after: 1\r\n" in said
            assert b"too many requests are waiting" in said
            assert answer_of(waiting) == (200, [embedded("今天")])


def test_answers_are_numbered_within_their_request():
    """Though they were computed in one pass with those of others."""
    with running() as served:
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(served.connect()) for _ in range(4)]
            clients[0].sendall(embed("慢0.5"))
            wait_until(lambda: served.predictor.passes)
            for client in clients[1:]:
                client.sendall(request({"texts": ["今天", "天气"]}, "/tag"))
            for client in clients[1:]:
                answers = answer_of(client)[1]
                assert [answer["id"] for answer in answers] == [0, 1]
        assert served.predictor.passes[-1] == 6


def test_the_connection_idle_for_longest_makes_room():
    with running(connections=3) as served:
        clients = []
        for _ in range(3):
            clients.append(served.connect())
            clients[-1].sendall(b"GET /hea")
            time.sleep(0.05)
        assert served.ask(embed("今天"))[0] == 200
        assert seconds_until_closed(clients[0])[0] < 2
        clients[1].sendall(b"lth HTTP/1.1\r\n" + HEADERS + b"\r\n")
        assert answer_of(clients[1]) == (200, {"status": "ok"})
        for client in clients:
            client.close()


def test_a_full_house_of_busy_connections_turns_others_away():
    with running(connections=1) as served:
        with served.connect() as busy:
            busy.sendall(embed("慢0.5"))
            wait_until(lambda: served.predictor.passes)
            with served.connect() as other:
                status, answer = answer_of(other)
            assert status == 503 and "too many conn" in answer["detail"]
            assert answer_of(busy)[0] == 200
        assert served.room.turned_away == 1


@pytest.mark.parametrize(
    "sent, status",
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # TLS
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"GET /health HTTP/1.0\r\n\r\n", 421),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n", 400),
        (
            b"POST /embed HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Length: 99999999999999999999\r\n\r\n",
            413,
        ),
        (
            b"POST /embed HTTP/1.1\r\nHost: localhost\r\n"
            b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
            400,
        ),
        (
            b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
    ],
)
def test_what_is_no_request_is_told_in_one_form(sent, status):
    with running(header_seconds=2) as served:
        found, answer = served.ask(sent)
        assert found == status and list(answer) == ["detail"]
        assert served.ask(embed("今天"))[0] == 200


def test_the_end_waits_for_what_has_begun_and_for_nobody_else():
    served = Running(body_seconds=30, header_seconds=30, drain_seconds=1)
    with (
        served.connect() as silent,
        served.connect() as headers,
        served.connect() as body,
        served.connect() as busy,
    ):
        headers.sendall(b"POST /embed HTTP/1.1\r\nHost:")
        body.sendall(embed("今天")[:-4])
        busy.sendall(embed("慢0.4"))
        wait_until(lambda: served.predictor.passes)
        assert served.stop() < 4
        assert answer_of(busy) == (200, [embedded("慢0.4")])
        assert answer_of(body) == (503, {"detail": "the service is stopping"})
        assert seconds_until_closed(silent)[1] == b""
        assert seconds_until_closed(headers)[1] == b""


class Command:
    """The whole command over a model that is none, in its own process."""

    def __init__(self, *flags):
        program = Path(__file__).with_name("fake_service.py")
        self.process = subprocess.Popen(
            [sys.executable, program, "--port", "0", *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        self.address = self.process.stdout.readline().strip()
        self.port = int(self.address.rstrip("/").rpartition(":")[2])

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), 10)

    def resident_mb(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024


@pytest.fixture
def command():
    started = []

    def start(*flags):
        started.append(Command(*flags))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.communicate()


def test_sigterm_ends_the_command_whatever_clients_do(command):
    """The whole command, without TensorFlow: a warning, an address, an end."""
    served = command("--host", "0.0.0.0")
    assert served.address.startswith("http://127.0.0.1:")
    with served.connect() as client, served.connect() as stuck:
        client.sendall(embed("今天") + embed("天气")[:-4])
        assert answer_of(client)[0] == 200
        stuck.sendall(embed("慢60"))  # a pass cannot be interrupted
        time.sleep(0.3)
        began = time.monotonic()
        served.process.send_signal(signal.SIGTERM)
        _, errors = served.process.communicate(timeout=30)
        assert time.monotonic() - began < 9
    assert served.process.returncode == 0
    assert errors.startswith("warning: --host 0.0.0.0 opens the service")
    assert "Traceback" not in errors


def test_a_port_in_use_is_told_before_the_model_loads(monkeypatch):
    monkeypatch.setattr(serve, "Predictor", None)
    with connections.listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        command = ["--model", "none", "--port", str(port)]
        with pytest.raises(UserError, match=f"127.0.0.1:{port} is in use"):
            serve.main(command)
    for host in ("no.such.host.invalid", "203.0.113.7"):
        with pytest.raises(UserError, match="check --host"):
            serve.main(["--model", "none", "--host", host])


def test_ipv6_is_listened_on():
    try:
        served = Running(host="::1")
    except UserError:
        pytest.skip("this machine has no IPv6")
    try:
        sent = embed("今天").replace(b"127.0.0.1", b"[::1]")
        assert served.ask(sent) == (200, [embedded("今天")])
    finally:
        served.stop()


def test_many_clients_are_answered_in_common_passes():
    with running() as served:
        answers = {}

        def client(number):
            with served.connect() as connection:
                for i in range(5):
                    text = f"{'今' * number}{i}"
                    connection.sendall(embed(text))
                    answers[text] = answer_of(connection)

        threads = [
            threading.Thread(target=client, args=(n,)) for n in range(1, 11)
        ]
        blocker = threading.Thread(target=served.ask, args=(embed("慢0.3"),))
        blocker.start()
        wait_until(lambda: served.predictor.passes)
        for thread in threads:
            thread.start()
        for thread in (blocker, *threads):
            thread.join()
        assert len(answers) == 50
        for text, answer in answers.items():
            assert answer == (200, [embedded(text)])
        assert len(served.predictor.passes) < 40
        address = "http://{}:{}/metrics".format(*served.address)
        with urllib.request.urlopen(address) as answer:
            text = answer.read().decode()
        assert 'albert_requests_total{route="/embed",status="200"} 51' in text
        assert "albert_batch_items_count" in text
        assert "process_resident_memory_bytes" in text


@pytest.mark.large
def test_two_thousand_connections_do_not_shut_others_out(command):
    served = command()
    resource = pytest.importorskip("resource", reason="needs Unix")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    held = []
    try:
        for number in range(2_000):
            held.append(served.connect())
            held[-1].sendall(b"POST /embed HTTP/1.1\r\nHost: lo")
            if number % 100 == 0:
                with served.connect() as client:
                    client.sendall(embed("今天"))
                    assert answer_of(client) == (200, [embedded("今天")])
        assert served.resident_mb() < 500
        began = time.monotonic()
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(20) == 0
        assert time.monotonic() - began < 10
    finally:
        for connection in held:
            connection.close()


@pytest.mark.large
def test_fifty_thousand_requests_leave_memory_flat(command):
    served = command()

    def ask(count):
        with served.connect() as client:
            stream = client.makefile("rb")
            for number in range(count):
                kinds = (
                    embed("今天" * (number % 50 + 1)),
                    request(b"[" * (number % 5_000)),
                    request({"texts": []}),
                    b"GET /%d HTTP/1.1\r\n%b\r\n" % (number, HEADERS),
                    request({"texts": [f"{number}[MASK]"]}, "/fill_mask"),
                )
                client.sendall(kinds[number % len(kinds)])
                length = 0
                while line := stream.readline().strip():
                    if line.lower().startswith(b"content-length"):
                        length = int(line.split(b":")[1])
                assert stream.read(length)

    def ask_by(clients, count):
        threads = [
            threading.Thread(target=ask, args=(count // clients,))
            for _ in range(clients)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    ask_by(10, 10_000)
    before = served.resident_mb()
    ask_by(10, 40_000)
    assert served.resident_mb() - before < 5


def test_no_answer_waits_for_a_receipt():
    with connections.listen("127.0.0.1", 0) as listener:
        with socket.create_connection(listener.getsockname()):
            accepted, _ = listener.accept()
            with accepted:
                option = socket.IPPROTO_TCP, socket.TCP_NODELAY
                assert accepted.getsockopt(*option)
