"""The service under load: one client, many clients, with and without batching.

Two services of one model run side by side, one that computes what waits in
common passes and one that computes each text by itself (`--batch_size 1`).
Clients ask in turns of a few seconds, all kinds of load in each round, so that
a busy machine is as busy for each. A client asks, reads the whole answer and
asks again at once. All of them run in this one process, on the same cores.

The last rows are the model without a service, one text and fifty at a time: no
service of it on this machine can do more.

Without --model: a classifier of the given architecture with random weights,
which is as fast as any.

    python benchmarks/service_load.py --seconds 5 --rounds 3
    python benchmarks/service_load.py --engine litert-int8
    python benchmarks/service_load.py --soak 50000
"""

import argparse
import asyncio
import itertools
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from albert_tf2 import command_line
from albert_tf2.errors import UserError

CLIENTS = (1, 8, 50)
# Characters of a text, as titles and questions have them.
LENGTHS = (5, 25)
FIRST_HAN = 0x4E00
HAN = 20_902


def write_model(folder: Path, config_name: str) -> Path:
    """Writes a two-class classifier with random weights."""
    from albert_tf2.config import load_model_config
    from albert_tf2.finetuning import encoders
    from albert_tf2.tasks import base, registry

    config = load_model_config(config_name)
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens += [chr(FIRST_HAN + i) for i in range(HAN)]
    tokens += [f"[unused{i}]" for i in range(config.vocab_size - len(tokens))]
    vocab_file = folder / "vocab.txt"
    text = "".join(f"{token}\n" for token in tokens[: config.vocab_size])
    vocab_file.write_text(text, "utf-8")
    task = registry.create("classification", labels=("0", "1"))
    task.pairs = False
    loaded = encoders.load_encoder(
        f"config:{config_name}", vocab_file=str(vocab_file)
    )
    encoders.save(
        folder / "model",
        model=encoders.build(task, loaded, seed=0),
        task=task,
        loaded=loaded,
        lengths=base.Lengths(max_seq_length=128),
    )
    return folder / "model"


class Server:
    """A service in a process of its own."""

    command: Sequence[str] = (sys.executable, "-m", "albert_tf2.serve")

    def __init__(self, model: str, *flags: str):
        self.process = subprocess.Popen(
            [*self.command, "--model", model, "--port", "0", *flags],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        address = self.process.stdout.readline().strip()
        if not address:
            raise UserError("the service did not start: it says why above")
        self.address = address.rstrip("/")
        self.port = int(self.address.rpartition(":")[2])

    def cpu_seconds(self) -> float:
        """Returns what the process has used of the processor."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text()
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def resident_mb(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        return int(found[1]) / 1024 if found else float("nan")

    def metrics(self) -> dict[str, float]:
        with urllib.request.urlopen(f"{self.address}/metrics") as stream:
            text = stream.read().decode()
        rows = re.findall(r"^(\w+) ([\d.e+]+)$", text, re.M)
        return {name: float(value) for name, value in rows}

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)


class Client(asyncio.Protocol):
    """Asks, reads the whole answer, and asks again."""

    def __init__(self, requests: Any, seconds: list[float]):
        self.requests, self.seconds = requests, seconds
        self.received = b""
        self.stopped = asyncio.get_running_loop().create_future()
        self.stopping = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._ask()

    def _ask(self) -> None:
        request = None if self.stopping else next(self.requests, None)
        if request is None:
            self.transport.close()
            return
        self.began = time.perf_counter()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, found, body = self.received.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(re.search(rb"content-length: (\d+)", head)[1])  # type: ignore[index]
        if len(body) < length:
            return
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"the service answered {self.received[:300]!r}")
        self.seconds.append(time.perf_counter() - self.began)
        self.received = b""
        self._ask()

    def connection_lost(self, error: Exception | None) -> None:
        self.stopped.set_result(error)


def requests(seed: int, route: str) -> Iterator[bytes]:
    """Yields requests of one text each, for ever."""
    for text in texts(seed):
        body = json.dumps({"texts": [text]}).encode()
        yield (
            b"POST /%b HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (route.encode(), len(body), body)
        )


async def load(
    port: int, route: str, clients: int, *, seconds: float, most: int = 0
) -> list[float]:
    """Lets some clients ask for some seconds; returns how long each took."""
    taken: list[float] = []
    loop = asyncio.get_running_loop()
    stream = requests(clients, route)
    if most:
        stream = itertools.islice(stream, most)
    made = [
        (
            await loop.create_connection(
                lambda: Client(stream, taken), "127.0.0.1", port
            )
        )[1]
        for _ in range(clients)
    ]
    stopped = asyncio.gather(*(client.stopped for client in made))
    await asyncio.wait([stopped], timeout=seconds)
    for client in made:
        client.stopping = True
    await stopped
    return taken


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def texts(seed: int) -> Iterator[str]:
    """Yields texts, for ever."""
    rng = random.Random(seed)
    while True:
        count = rng.randint(*LENGTHS)
        yield "".join(chr(FIRST_HAN + rng.randrange(HAN)) for _ in range(count))


def alone(model: str, engine: str, seconds: float) -> float:
    """Prints what the model does without a service.

    Returns:
        How many times more texts it computes many at a time than one at a
        time: what batching can bring.
    """
    from albert_tf2.prediction.predictor import Predictor

    predictor = Predictor(model, engine=engine)
    stream = texts(0)
    rates = []
    for count in (1, CLIENTS[-1]):
        for _ in range(5):
            predictor.classify(list(itertools.islice(stream, count)))
        began, cpu, done = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() - began < seconds:
            predictor.classify(list(itertools.islice(stream, count)))
            done += count
        wall = time.perf_counter() - began
        rates.append(done / wall)
        cpu = (time.process_time() - cpu) / done * 1000
        print(
            f"| the model alone | | {done / wall:.0f} | | | | {count} | "
            f"{cpu:.2f} |"
        )
    return rates[1] / rates[0]


def measure(args: argparse.Namespace, model: str) -> None:
    """Prints the table."""
    flags = {"batched": (), "one by one": ("--batch_size", "1")}
    servers = {
        name: Server(model, "--engine", args.engine, *more)
        for name, more in flags.items()
    }
    found: dict[tuple[str, int], dict[str, Any]] = {}
    try:
        for number in range(args.rounds + 1):
            # The first round warms up.
            seconds = args.seconds if number else min(args.seconds, 1)
            for clients in CLIENTS:
                for name, server in servers.items():
                    cell = found.setdefault(
                        (name, clients),
                        {"taken": [], "wall": 0.0, "cpu": 0.0, "passes": 0.0},
                    )
                    before = server.metrics(), server.cpu_seconds()
                    began = time.perf_counter()
                    taken = asyncio.run(
                        load(server.port, args.route, clients, seconds=seconds)
                    )
                    wall = time.perf_counter() - began
                    if not number:
                        continue
                    cell["taken"] += taken
                    cell["wall"] += wall
                    cell["cpu"] += server.cpu_seconds() - before[1]
                    count = "albert_batch_items_count"
                    cell["passes"] += server.metrics()[count] - before[0][count]
    finally:
        for server in servers.values():
            server.stop()
    print(f"\n{args.config}, {args.engine}, /{args.route}, {LENGTHS} "
          f"characters, {args.rounds} rounds of {args.seconds:g} s; "
          f"load average {os.getloadavg()[0]:.1f}, "
          f"{os.cpu_count()} cores")  # fmt: skip
    print("| service | clients | requests/s | p50 ms | p95 ms | max ms | "
          "texts a pass | CPU ms a request |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|")
    for (name, clients), cell in found.items():
        taken = cell["taken"]
        cell["rate"] = len(taken) / cell["wall"]
        print(
            f"| {name} | {clients} | {cell['rate']:.0f} | "
            f"{percentile(taken, 0.5) * 1000:.1f} | "
            f"{percentile(taken, 0.95) * 1000:.1f} | "
            f"{max(taken) * 1000:.1f} | {len(taken) / cell['passes']:.1f} | "
            f"{cell['cpu'] / len(taken) * 1000:.2f} |"
        )
    bound = None
    if args.route == "classify":
        bound = alone(model, args.engine, args.seconds)
    many = found["batched", CLIENTS[-1]]
    one = found["batched", 1]
    single = found["one by one", CLIENTS[-1]]
    median = statistics.median(one["taken"])
    print(
        f"\n{CLIENTS[-1]} clients: {many['rate'] / one['rate']:.1f} x the "
        f"requests of one client, {many['rate'] / single['rate']:.1f} x those "
        f"of {CLIENTS[-1]} clients one by one; p95 is "
        f"{percentile(many['taken'], 0.95) / median:.1f} x the median of one "
        "client"
    )
    if bound:
        print(f"the model alone: {bound:.1f} x as many texts "
              f"{CLIENTS[-1]} at a time")  # fmt: skip


def soak(args: argparse.Namespace, model: str) -> None:
    """Prints the memory of the service as requests go by."""
    server = Server(model, "--engine", args.engine)
    try:
        step = max(1, args.soak // 10)
        for done in range(0, args.soak, step):
            asyncio.run(
                load(server.port, args.route, CLIENTS[-1],
                     seconds=3600, most=step)
            )  # fmt: skip
            print(f"{done + step:>8,} requests: {server.resident_mb():.0f} MB",
                  flush=True)  # fmt: skip
    finally:
        server.stop()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line."""
    parser = command_line.parser(__doc__)
    parser.add_argument("--model", help="a fine-tuned model's folder")
    parser.add_argument("--config", default="albert_tiny_zh")
    parser.add_argument("--route", default="classify")
    command_line.add_engine(parser)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--soak", type=int, metavar="REQUESTS", help="memory, over so many"
    )
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        model = args.model or str(write_model(Path(folder), args.config))
        (soak if args.soak else measure)(args, model)
    return 0


if __name__ == "__main__":
    command_line.run(main)
