"""The cluster build: a real standalone cluster that loses a worker."""

import gzip
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from albert_tf2 import UserError
from albert_tf2.data import build_pretraining_data, shards, spark_build, workers
from albert_tf2.data.build_config import BuildConfig

CHARACTERS = (
    "的一是在不了有和人这中大为上个国我以要他时来用们生到作地于出就分对成会"
)
SETTINGS = {"max_seq_length": 64, "num_shards": 3, "eval_fraction": 0.1,
            "segmenter": "none", "unit_bytes": 20_000}  # fmt: skip


def write_corpus(folder, documents):
    """Writes a plain and a compressed file, and a vocabulary."""
    rng = random.Random(5)

    def text():
        for _ in range(documents):
            for _ in range(rng.randrange(1, 20)):
                yield "".join(rng.choices(CHARACTERS, k=rng.randrange(3, 25)))
                yield "。\n"
            yield "\n"

    (folder / "a.txt").write_text("".join(text()), "utf-8")
    (folder / "b.txt.gz").write_bytes(gzip.compress("".join(text()).encode()))
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *CHARACTERS, "。"]
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n", "utf-8")


def plan_of(folder, output_dir):
    return build_pretraining_data.make_plan(
        f"{folder}/[ab].txt*", f"{folder}/vocab.txt", str(output_dir),
        BuildConfig(**SETTINGS),
    )  # fmt: skip


def build_here(folder, output_dir):
    plan = plan_of(folder, output_dir)
    pool = workers.Workers(1, progress=False)
    build_pretraining_data.build(plan, pool)
    return files_of(output_dir)


def files_of(folder):
    return {p.name: p.read_bytes() for p in Path(folder).iterdir()}


def command(folder, output_dir, master, *more):
    flags = [f"--{name}={value}" for name, value in SETTINGS.items()]
    return [sys.executable, "-m", "albert_tf2.data.spark_build",
            "--master", master, "--input_file", f"{folder}/[ab].txt*",
            "--vocab_file", f"{folder}/vocab.txt",
            "--output_dir", str(output_dir), *flags, *more]  # fmt: skip


def test_tasks_are_units_or_compressed_files(tmp_path):
    write_corpus(tmp_path, 100)
    plan = plan_of(tmp_path, tmp_path / "out")
    tasks = spark_build.tasks_of(plan)
    assert tasks[-1] == (1, None)
    assert tasks[:-1] == [(0, i) for i in range(len(tasks) - 1)]
    assert len(tasks) > 3


class Context:
    """What of Spark's context the pool uses, in one process."""

    def broadcast(self, value):
        return type("Shared", (), {"value": value})

    def parallelize(self, items, num_tasks):
        assert 1 <= num_tasks <= len(items)
        half = len(items) // 2  # in the other order
        return Rdd([items[half:], items[:half]])


class Rdd:
    def __init__(self, shares):
        self.shares = shares

    def mapPartitions(self, function):
        return Rdd([list(function(iter(share))) for share in self.shares])

    def mapPartitionsWithIndex(self, function):
        return Rdd([list(function(*s)) for s in enumerate(self.shares)])

    def partitionBy(self, count, number_of):
        shares = [[] for _ in range(count)]
        for share in self.shares:
            for key, value in share:
                shares[number_of(key) % count].append((key, value))
        return Rdd(shares)

    def collect(self):
        return [item for share in self.shares for item in share]


def test_parts_made_by_tasks_are_those_of_the_local_build(tmp_path):
    """The cluster's functions, without a cluster."""

    class Here(spark_build.SparkPool):
        def __init__(self):
            super().__init__(Context())

    write_corpus(tmp_path, 60)
    expected = build_here(tmp_path, tmp_path / "here")
    plan = plan_of(tmp_path, tmp_path / "there")
    build_pretraining_data.build(plan, Here())
    assert files_of(tmp_path / "there") == expected


def test_an_error_of_the_user_comes_back_as_one():
    def fail(some):
        next(some)
        raise UserError("line 7 is wrong")
        yield

    outcomes = list(spark_build._told(fail, iter([1, 2])))
    assert str(outcomes[0]) == "line 7 is wrong"


def test_bad_flags(tmp_path):
    with pytest.raises(SystemExit):
        spark_build.main(["--output_dir", str(tmp_path)])
    with pytest.raises(SystemExit):
        spark_build.main(
            ["--master", "x", "--output_dir", "y", "--conf", "novalue"]
        )


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nohost", "127.0.0.1:x"])
def test_a_master_that_is_not_there_is_told_at_once(address):
    pytest.importorskip("pyspark")
    flags = ["--master", f"spark://{address}", "--output_dir", "unused"]
    with pytest.raises(UserError, match="no Spark master answers"):
        spark_build.main(flags)


@pytest.fixture
def cluster(tmp_path):
    """One master and two workers on loopback; gives its URL and workers."""
    pyspark = pytest.importorskip("pyspark")
    if not shutil.which("java"):
        pytest.skip("no java: apt-get install openjdk-17-jre-headless")
    spark_class = Path(pyspark.__file__).parent / "bin" / "spark-class"
    environment = {
        **os.environ,
        "SPARK_DAEMON_MEMORY": "256m",
        "SPARK_LOCAL_IP": "127.0.0.1",
        "PYSPARK_PYTHON": sys.executable,
    }

    def start(name, *arguments):
        log = open(tmp_path / f"{name}.log", "wb")
        # A session of its own, so that its executors can be killed with it.
        return subprocess.Popen(
            [spark_class, f"org.apache.spark.deploy.{arguments[0]}",
             "--host", "127.0.0.1", *arguments[1:]],
            env=environment, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip

    port, page = free_port(), free_port()
    url = f"spark://127.0.0.1:{port}"
    processes = [start("master", "master.Master", "--port", str(port),
                       "--webui-port", str(page))]  # fmt: skip
    for number in range(2):
        processes.append(
            start(f"worker{number}", "worker.Worker", url, "--cores", "1",
                  "--memory", "700m", "--webui-port", str(free_port()),
                  "--work-dir", str(tmp_path / f"work{number}"))
        )  # fmt: skip
    try:
        wait_for(
            lambda: (tmp_path / "master.log").read_text("utf-8", "replace")
            .count("Registering worker") == 2
        )  # fmt: skip
        yield url, processes[1:]
    finally:
        for process in processes:
            kill_session(process)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the cluster does not come up"
        time.sleep(0.02)


def kill_session(process):
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.large
def test_a_cluster_that_loses_a_worker_gives_the_same_bytes(cluster, tmp_path):
    url, spark_workers = cluster
    write_corpus(tmp_path, 4000)
    expected = build_here(tmp_path, tmp_path / "here")
    output_dir = tmp_path / "there"
    parts = output_dir / shards.PARTS_FOLDER
    conf = [f"--conf={setting}" for setting in (
        "spark.executor.memory=512m", "spark.driver.memory=512m",
        "spark.driver.host=127.0.0.1", "spark.ui.enabled=false",
    )]  # fmt: skip
    with open(tmp_path / "driver.log", "wb") as log:
        build = subprocess.Popen(
            command(tmp_path, output_dir, url, *conf),
            stdout=log, stderr=log,
        )  # fmt: skip
        try:
            wait_for(
                lambda: (
                    build.poll() is not None
                    or len(list(parts.glob("*.part"))) >= 20
                )
            )
            assert build.poll() is None, "it ended before the kill"
            kill_session(spark_workers[0])
            assert not (output_dir / shards.MANIFEST).exists()
            assert build.wait(timeout=300) == 0, log_of(tmp_path)
        finally:
            build.kill()
    assert files_of(output_dir) == expected
    told = log_of(tmp_path)
    assert "Lost executor" in told or "Worker lost" in told


def log_of(folder):
    return (folder / "driver.log").read_text("utf-8", "replace")
