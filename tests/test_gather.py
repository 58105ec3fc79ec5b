"""Parts -> shards: each part is opened once, whatever the number of shards."""

import random
import resource
import sys

import pytest

from albert_tf2.data import build_pretraining_data, gather, workers
from albert_tf2.data.build_config import BuildConfig

OPENED = []
sys.addaudithook(
    lambda event, found: (
        OPENED.append(str(found[0]))
        if event == "open" and isinstance(found[0], str)
        else None
    )
)


@pytest.fixture
def plan(tmp_path):
    rng = random.Random(3)
    text = "".join(
        "".join(rng.choices("一二三四五", k=rng.randrange(2, 20))) + "\n" * 2
        for _ in range(800)
    )
    (tmp_path / "a.txt").write_text(text, "utf-8")
    tokens = "[PAD] [UNK] [CLS] [SEP] [MASK] 一 二 三 四 五".split()
    (tmp_path / "vocab.txt").write_text("\n".join(tokens) + "\n", "utf-8")
    return build_pretraining_data.make_plan(
        f"{tmp_path}/a.txt", f"{tmp_path}/vocab.txt", f"{tmp_path}/out",
        BuildConfig(max_seq_length=32, num_shards=40, eval_fraction=0.1,
                    segmenter="none", unit_bytes=1000),
    )  # fmt: skip


def files_of(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_every_part_is_read_once(plan, monkeypatch, tmp_path):
    OPENED.clear()
    build_pretraining_data.build(plan, workers.Workers(1, progress=False))
    parts = [path for path in OPENED if path.endswith(".part")]
    assert len(parts) == len(set(parts)) > 20
    spools = [path for path in OPENED if path.endswith(".spool")]
    assert len(spools) <= 2 * (40 + 4)  # written once, read once
    assert not (tmp_path / "out" / ".parts").exists()


def test_few_rows_in_memory_and_few_open_files_change_no_byte(
    plan, monkeypatch, tmp_path
):
    build_pretraining_data.build(plan, workers.Workers(1, progress=False))
    expected = files_of(tmp_path / "out")
    for path in (tmp_path / "out").iterdir():
        path.unlink()
    monkeypatch.setattr(gather, "SPOOL_BYTES", 500)
    most = []

    def few(wanted):
        most.append(wanted)
        return gather.OTHER_FILES + 7

    monkeypatch.setattr(gather, "open_files", few)
    build_pretraining_data.build(plan, workers.Workers(3, progress=False))
    assert files_of(tmp_path / "out") == expected


def test_the_limit_of_open_files_is_raised_where_it_may_be():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, before[1]))
        assert gather.open_files(200) == 200
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 200
        assert gather.open_files(100) == 100
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 200
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_stretches_are_consecutive_and_few():
    names = [f"{i}" for i in range(10)]
    for count in (1, 2, 3, 4, 9):
        found = gather.stretches(names, count)
        assert [n for some in found for n in some] == names
        assert len(found) <= min(count, gather.MOST_STRETCHES)
    assert gather.stretches(names[:1], 4) == [["0"]]
    assert gather.stretches([], 4) == []


def test_spools_are_closed_though_they_open_at_the_end(tmp_path):
    """What is written last fails here, if it does, and not unseen."""
    keys = [("records", 0), ("records", 1)]
    with gather._Spools(str(tmp_path), 0, keys) as spools:
        for key in keys:
            spools.add(key, b"row")
    assert len(spools._files) == 2
    assert all(file.closed for file in spools._files.values())
    assert gather.read_spools(str(tmp_path), keys[1]) == [b"row"]
