"""The builder as a whole: same bytes, resume, repair, bad input."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from checks import check_refused
from small_records import unpack_tokens

from albert_tf2 import UserError, paths
from albert_tf2.data import (
    build_pretraining_data,
    corpus,
    part_files,
    reading,
    records,
    shards,
    workers,
)
from albert_tf2.data.build_config import BuildConfig
from albert_tf2.text.tokenization import Tokenizer, Vocabulary

CHARACTERS = (
    "的一是在不了有和人这中大为上个国我以要他时来用们生到作地于出就分对成会"
)
SPECIALS = "[PAD] [UNK] [CLS] [SEP] [MASK]".split()
UNIT = 3000
MODULE = "albert_tf2.data.build_pretraining_data"


@pytest.fixture
def vocab_file(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join([*SPECIALS, *CHARACTERS, "。"]) + "\n", "utf-8")
    return str(path)


@pytest.fixture
def texts(tmp_path):
    """Two files with some 180 documents, long and short."""
    rng = random.Random(5)
    for name in ("a.txt", "b.txt"):
        documents = []
        for _ in range(90):
            sentences = [
                "".join(rng.choices(CHARACTERS, k=rng.randrange(3, 25))) + "。"
                for _ in range(rng.choice([1, 2, 3, 8, 30]))
            ]
            documents.append("\n".join(sentences) + "\n")
        (tmp_path / name).write_text("\n".join(documents), "utf-8")
    return f"{tmp_path}/[ab].txt"


def build(texts, vocab_file, output_dir, *, num_workers=1, **settings):
    small = {"max_seq_length": 64, "num_shards": 3, "unit_bytes": UNIT}
    small |= {"segmenter": "none", "eval_fraction": 0.2, **settings}
    plan = build_pretraining_data.make_plan(
        texts, vocab_file, str(output_dir), BuildConfig(**small)
    )
    pool = workers.Workers(num_workers, progress=False)
    return build_pretraining_data.build(plan, pool)


def files_of(folder):
    return {p.name: p.read_bytes() for p in Path(folder).iterdir()}


def rows_of(output_dir, manifest, subset=None):
    """Yields lists of (A, B) token ids."""
    import tensorflow as tf

    for entry in manifest["shards"]:
        if subset not in (None, entry["subset"]):
            continue
        for data in records.read_records(f"{output_dir}/{entry['name']}"):
            feature = tf.train.Example.FromString(data).features.feature
            ids, _ = unpack_tokens(
                feature["tokens"].bytes_list.value[0], "uint16"
            )
            lengths = list(feature["segment_lengths"].int64_list.value)
            segments = np.split(ids, np.cumsum(lengths)[:-1])
            yield list(zip(segments[::2], segments[1::2], strict=True))


def test_every_token_is_stored_once_and_counted(texts, vocab_file, tmp_path):
    output_dir = tmp_path / "out"
    manifest = build(texts, vocab_file, output_dir, short_seq_prob=0.5)
    counts = manifest["counts"]
    rows = list(rows_of(output_dir, manifest))
    stored = sorted(
        tuple(np.concatenate(pair).tolist()) for row in rows for pair in row
    )
    vocabulary = Vocabulary.load(vocab_file)
    tokenizer = Tokenizer(vocabulary)
    documents = list(reading.read_documents(corpus.find_files(texts)))
    sentences = [tokenizer.tokenize(s).ids for d in documents for s in d]
    assert counts["documents"] == len(documents) == 180
    assert counts["sentences"] == len(sentences)
    total = sum(map(len, sentences))
    assert counts["tokens"] == total
    assert sum(map(len, stored)) == total - counts["dropped_tokens"]
    assert counts["pairs"] == len(stored)
    assert counts["train_records"] + counts["eval_records"] == len(rows)
    assert counts["one_sentence_documents"] == sum(
        len(document) == 1 for document in documents
    )
    # Each pair is a stretch of one document.
    spelled = [
        "," + ",".join(str(i) for s in d for i in tokenizer.tokenize(s).ids)
        + "," for d in documents
    ]  # fmt: skip
    for pair in random.Random(0).sample(stored, 60):
        text = "," + ",".join(map(str, pair)) + ","
        assert any(text in document for document in spelled)


def test_rows_fit_and_hold_what_the_manifest_says(texts, vocab_file, tmp_path):
    output_dir = tmp_path / "out"
    manifest = build(texts, vocab_file, output_dir)
    used = 0
    rows = list(rows_of(output_dir, manifest))
    for row in rows:
        cost = sum(len(a) + len(b) + 3 for a, b in row)
        assert cost <= 64
        assert len(row) <= manifest["max_pairs_per_record"] == 2
        used += cost
    assert manifest["counts"]["padding_tokens"] == 64 * len(rows) - used
    assert (output_dir / "vocab.txt").read_bytes() == Path(
        vocab_file
    ).read_bytes()
    assert not (output_dir / ".parts").exists()


def test_held_out_documents_are_whole_and_apart(texts, vocab_file, tmp_path):
    manifest = build(texts, vocab_file, tmp_path / "out")
    counts = manifest["counts"]
    assert counts["train_documents"] + counts["eval_documents"] == 180
    assert 15 <= counts["eval_documents"] <= 60
    train, held_out = (
        {
            tuple(np.concatenate(pair).tolist())
            for row in rows_of(tmp_path / "out", manifest, subset)
            for pair in row
        }
        for subset in ("train", "eval")
    )
    assert train and held_out and not train & held_out
    without = build(texts, vocab_file, tmp_path / "none", eval_fraction=0.0)
    assert {entry["subset"] for entry in without["shards"]} == {"train"}


def test_documents_are_spread_over_shards(vocab_file, tmp_path):
    # Document n consists of token n, so rows tell where they come from.
    lines = [f"{c * 20}\n{c * 20}\n\n" for c in CHARACTERS for _ in range(20)]
    (tmp_path / "c.txt").write_text("".join(lines), "utf-8")
    manifest = build(
        str(tmp_path / "c.txt"), vocab_file, tmp_path / "out",
        eval_fraction=0.0, num_shards=2,
    )  # fmt: skip
    sizes = [entry["records"] for entry in manifest["shards"]]
    assert abs(sizes[0] - sizes[1]) < 5 * sum(sizes) ** 0.5
    for entry in manifest["shards"]:
        one = {"shards": [entry]}
        places = [row[0][0][0] for row in rows_of(tmp_path / "out", one)]
        # Neither in the order of the corpus nor bunched: the ranks of
        # neighbours are as far apart as those of strangers, a third.
        gaps = np.abs(np.diff(np.array(places, float))) / len(CHARACTERS)
        assert abs(gaps.mean() - 1 / 3) < 0.06
        assert len(set(places)) == len(CHARACTERS)


def test_files_of_the_same_content_are_cut_differently(vocab_file, tmp_path):
    text = "的一是在不。\n了有和人。\n这中大为上个国。\n我以要。\n\n" * 40
    cuts = []
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(text, "utf-8")
        output_dir = tmp_path / f"{name}.out"
        manifest = build(str(tmp_path / name), vocab_file, output_dir)
        rows = rows_of(output_dir, manifest)
        cuts.append(sorted((len(a), len(b)) for row in rows for a, b in row))
    assert len(cuts[0]) > 40 and cuts[0] != cuts[1]


def test_options_reach_the_tokens(vocab_file, tmp_path):
    tokens = [*SPECIALS, *"的云计算来", '"', "a", "A"]
    Path(vocab_file).write_text("\n".join(tokens), "utf-8")
    (tmp_path / "c.txt").write_text("云计算“A”\n来的\n", "utf-8")
    (tmp_path / "terms.txt").write_text("云计算 99999\n", "utf-8")

    def spelled(name, dictionaries=(), **settings):
        config = BuildConfig(
            max_seq_length=64, eval_fraction=0, num_shards=1,
            short_seq_prob=0, **settings
        )  # fmt: skip
        plan = build_pretraining_data.make_plan(
            str(tmp_path / "c.txt"), vocab_file, str(tmp_path / name), config,
            user_dictionaries=dictionaries,
        )  # fmt: skip
        pool = workers.Workers(1, progress=False)
        build_pretraining_data.build(plan, pool)
        shard = tmp_path / name / "records-00000-of-00001.tfrecord"
        (data,) = records.read_records(str(shard))
        import tensorflow as tf

        feature = tf.train.Example.FromString(data).features.feature
        ids, starts = unpack_tokens(
            feature["tokens"].bytes_list.value[0], "uint16"
        )
        return "".join(
            "|" * int(start) + tokens[i]
            for i, start in zip(ids, starts, strict=True)
        )

    assert spelled("1", segmenter="none") == ("|云|计|算|[UNK]|a|[UNK]|来|的")
    assert spelled("2", segmenter="none", normalize=True) == (
        '|云|计|算|"|a|"|来|的'
    )
    assert spelled("3", segmenter="none", do_lower_case=False).count("A") == 1
    assert spelled("4", segmenter="jieba").startswith("|云|计算|")
    terms = [str(tmp_path / "terms.txt")]
    assert spelled("5", terms, segmenter="jieba").startswith("|云计算|")


@pytest.mark.parametrize("num_workers", [2, 7])
def test_same_bytes_for_any_number_of_workers(
    texts, vocab_file, tmp_path, num_workers
):
    build(texts, vocab_file, tmp_path / "one")
    build(texts, vocab_file, tmp_path / "more", num_workers=num_workers)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "more")


def test_seed_and_compression(texts, vocab_file, tmp_path):
    import gzip

    build(texts, vocab_file, tmp_path / "one")
    build(texts, vocab_file, tmp_path / "two", seed=2)
    first, second = (
        {n: d for n, d in files_of(tmp_path / f).items() if "-of-" in n}
        for f in ("one", "two")
    )
    assert all(first[name] != second[name] for name in first)
    (tmp_path / "gz").mkdir()
    for name in ("a.txt", "b.txt"):
        data = gzip.compress((tmp_path / name).read_bytes())
        (tmp_path / "gz" / f"{name}.gz").write_bytes(data)
    build(f"{tmp_path}/gz/*", vocab_file, tmp_path / "three", num_workers=2)
    third = files_of(tmp_path / "three")
    assert {n: third[n] for n in first} == first


@pytest.mark.parametrize("victim", ["builder", "worker"])
def test_killed_anywhere_the_rerun_gives_the_same_bytes(
    texts, vocab_file, tmp_path, victim
):
    build(texts, vocab_file, tmp_path / "whole")
    output_dir = tmp_path / "killed"
    command = [
        sys.executable, "-m", MODULE, "--unit_bytes", str(UNIT),
        *flags_of(texts, vocab_file, output_dir), "--num_workers", "2",
        "--max_seq_length", "64", "--num_shards", "3",
        "--eval_fraction", "0.2", "--segmenter", "none",
    ]  # fmt: skip
    rng = random.Random(victim)
    kills = 0
    for _ in range(30):
        process = subprocess.Popen(command, stderr=subprocess.PIPE)
        _wait_for_progress(process, output_dir, rng.randrange(1, 12))
        if process.poll() is None:
            pid = process.pid
            if victim == "worker":
                children = Path(f"/proc/{pid}/task/{pid}/children")
                if not children.exists():
                    pytest.skip("this system does not list child processes")
                pid = int((children.read_text().split() or [pid])[0])
            os.kill(pid, signal.SIGKILL)
        _, errors = process.communicate(timeout=60)
        if process.returncode == 0:
            break
        kills += 1
        if victim == "worker" and process.returncode > 0:
            assert b"a worker process was killed" in errors
    assert kills > 0
    if process.returncode != 0:
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    assert files_of(output_dir) == files_of(tmp_path / "whole")


def _wait_for_progress(process, output_dir, num_files):
    """Waits until the process has written some more files, or has ended."""

    def written():
        return sum(len(names) for _, _, names in os.walk(output_dir))

    target = written() + num_files
    while process.poll() is None and written() < target:
        time.sleep(0.001)


def test_verify_names_and_rebuilds_only_the_damaged_shard(
    texts, vocab_file, tmp_path, capsys
):
    output_dir = tmp_path / "out"
    build(texts, vocab_file, output_dir)
    before = files_of(output_dir)
    pool = workers.Workers(1, progress=False)
    assert "all 4 shards are intact" in build_pretraining_data.verify(
        str(output_dir), pool
    )
    victim = output_dir / "records-00001-of-00003.tfrecord"
    damaged = bytearray(victim.read_bytes())
    damaged[100] ^= 1
    victim.write_bytes(damaged)
    (output_dir / "eval-00000-of-00001.tfrecord").unlink()
    times = {p: p.stat().st_mtime_ns for p in output_dir.glob("records*")}
    told = build_pretraining_data.verify(str(output_dir), pool)
    assert "records-00001-of-00003" in told and "eval-00000" in told
    assert "records-00000" not in told
    assert files_of(output_dir) == before
    assert [p.name for p, t in times.items() if p.stat().st_mtime_ns != t] == [
        victim.name
    ]
    victim.unlink()
    (tmp_path / "moved").mkdir()
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).rename(tmp_path / "moved" / name)
    with pytest.raises(UserError, match="no file matches"):
        build_pretraining_data.verify(str(output_dir), pool)
    build_pretraining_data.verify(
        str(output_dir), pool, [f"{tmp_path}/moved/*"]
    )
    assert files_of(output_dir) == before
    victim.unlink()
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("别的。\n", "utf-8")
    with pytest.raises(UserError, match="built differently.*inputs"):
        build_pretraining_data.verify(str(output_dir), pool)
    with pytest.raises(UserError, match="not finished"):
        build_pretraining_data.verify(str(tmp_path / "absent"), pool)


def test_a_folder_of_another_build_is_refused(texts, vocab_file, tmp_path):
    output_dir = tmp_path / "out"
    first = build(texts, vocab_file, output_dir)
    assert build(texts, vocab_file, output_dir) == first  # nothing to do
    with pytest.raises(UserError, match="config.seed was 12345, now 1"):
        build(texts, vocab_file, output_dir, seed=1)
    other = tmp_path / "other.txt"
    other.write_text(Path(vocab_file).read_text("utf-8") + "们们\n", "utf-8")
    with pytest.raises(UserError, match="vocab_sha256 was"):
        build(texts, str(other), output_dir)
    with pytest.raises(UserError, match="inputs.b.txt was"):
        build(f"{tmp_path}/a.txt", vocab_file, output_dir)
    (output_dir / "manifest.json").unlink()
    with pytest.raises(UserError, match="records of another origin"):
        build(texts, vocab_file, output_dir)


def test_damaged_parts_of_a_killed_build_are_made_again(
    texts, vocab_file, tmp_path, monkeypatch
):
    build(texts, vocab_file, tmp_path / "whole")
    output_dir = tmp_path / "out"

    def stop(plan, manifest):
        raise KeyboardInterrupt

    monkeypatch.setattr(shards, "write_manifest", stop)
    with pytest.raises(KeyboardInterrupt):
        build(texts, vocab_file, output_dir)
    monkeypatch.undo()
    with pytest.raises(UserError, match="config.seed was 12345, now 1"):
        build(texts, vocab_file, output_dir, seed=1)
    part, *others = sorted((output_dir / ".parts").glob("*.part"))
    made = []
    write_part = part_files.write_part
    monkeypatch.setattr(
        part_files, "write_part",
        lambda path, part: made.append(path) or write_part(path, part),
    )  # fmt: skip
    part.write_bytes(part.read_bytes()[:-1] + b"\0")
    others[0].write_bytes(others[0].read_bytes()[:20])
    (output_dir / ".records-00000.0123.albert-tmp").write_bytes(b"half")
    (output_dir / "notes.tmp").write_bytes(b"the user's")
    assert part_files.load_head(str(part)) is None
    build(texts, vocab_file, output_dir)
    left = files_of(tmp_path / "whole") | {"notes.tmp": b"the user's"}
    assert files_of(output_dir) == left
    assert sorted(made) == [str(part), str(others[0])]  # and no others


def test_two_builds_of_one_folder_do_not_mix(texts, vocab_file, tmp_path):
    output_dir = tmp_path / "out"
    with paths.lock(output_dir, "build"):
        done = run_cli(*flags_of(texts, vocab_file, output_dir))
        assert done.returncode == 2
        assert "out is in use by another build (process " in done.stderr
        assert done.stderr.count("\n") == 1
        assert files_of(output_dir).keys() == {".lock"}
    manifest = build(texts, vocab_file, output_dir)
    name = manifest["shards"][0]["name"]
    (output_dir / name).write_bytes(b"damaged")
    with paths.lock(output_dir, "build"):
        with pytest.raises(UserError, match="in use by another build"):
            build_pretraining_data.verify(str(output_dir), one_worker())
    assert (output_dir / name).read_bytes() == b"damaged"


@pytest.mark.parametrize("scheme", ["file", "ram"])
def test_a_build_through_addresses_has_the_same_bytes(
    texts, vocab_file, tmp_path, scheme
):
    expected = build(texts, vocab_file, tmp_path / "whole")
    root = f"file://{tmp_path}"
    if scheme == "ram":
        root = f"ram://{tmp_path.name}"
        for path in [*paths.find(texts), vocab_file]:
            paths.copy_file(path, paths.join(root, paths.name(path)))
    output_dir = f"{root}/out"
    found = build(f"{root}/[ab].txt", f"{root}/vocab.txt", output_dir)
    assert found["shards"] == expected["shards"]
    assert found["identity"] == expected["identity"]
    assert paths.names(output_dir) == paths.names(tmp_path / "whole")
    damaged = paths.join(output_dir, found["shards"][1]["name"])
    with paths.atomic_file(damaged, "wb") as stream:
        stream.write(b"damaged")
    told = build_pretraining_data.verify(output_dir, one_worker())
    assert f"rebuilt {paths.name(damaged)}; all" in told
    assert paths.names(output_dir) == paths.names(tmp_path / "whole")


def one_worker():
    return workers.Workers(1, progress=False)


def run_cli(*arguments):
    command = [sys.executable, "-m", MODULE, *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def flags_of(texts, vocab_file, output_dir):
    return ["--input_file", texts, "--vocab_file", vocab_file,
            "--output_dir", str(output_dir)]  # fmt: skip


@pytest.mark.parametrize(
    "settings, message",
    [
        (
            ["--max_seq_length", "4"],
            "`max_seq_length` must be a whole number",
        ),
        (["--segmenter", "hanlp"], "`segmenter` must be one of rjieba"),
        (
            ["--short_seq_prob", "2"],
            "`short_seq_prob` must be a number",
        ),
        (["--num_workers", "0"], "`num_workers` must be a whole number"),
        (["--input_file", "absent*.txt"], "no file matches 'absent*.txt'"),
        (["--vocab_file", "absent.txt"], "absent.txt does not exist"),
        (["--user_dictionary", "absent.txt"], "absent.txt does not exist"),
    ],
)
def test_bad_flags_exit_2_with_one_line(
    texts, vocab_file, tmp_path, settings, message
):
    flags = flags_of(texts, vocab_file, tmp_path / "out")
    check_refused(MODULE, *flags, *settings, says=message)
    assert not (tmp_path / "out").exists()


def test_command_line_end_to_end(texts, vocab_file, tmp_path):
    output_dir = str(tmp_path / "out")
    flags = flags_of(texts, vocab_file, output_dir)
    done = run_cli(*flags, "--max_seq_length", "64")
    assert done.returncode == 0, done.stderr
    assert "180 documents" in done.stdout
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["identity"]["config"]["segmenter"] in ("rjieba", "jieba")
    assert (
        "shards are intact"
        in run_cli("--verify", "--output_dir", output_dir).stdout
    )


def test_importing_and_building_leaves_tensorflow_alone():
    code = (
        "import sys; import albert_tf2.data.build_pretraining_data; "
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("on_error, lines", [("fail", 0), ("skip", 1)])
def test_wrong_bytes_fail_or_are_counted(
    texts, vocab_file, tmp_path, on_error, lines
):
    good = "的一是。\n在不了。\n" * 6
    (tmp_path / "c.txt").write_bytes(good.encode() + b"\xb5\n")
    arguments = [str(tmp_path / "c.txt"), vocab_file, tmp_path / "out"]
    if on_error == "fail":
        for num_workers in (1, 2):
            with pytest.raises(UserError, match="c.txt, line 13, byte 156"):
                build(*arguments, num_workers=num_workers)
        return
    manifest = build(*arguments, on_error=on_error)
    assert manifest["counts"]["lines_not_utf8"] == lines
    assert manifest["counts"]["sentences"] == 12


def test_odd_but_good_input(vocab_file, tmp_path):
    text = "\ufeff的一\0是。\r\n在不了。\r\n \u3000\r\n\x0b\r\n有和人。\r\n"
    (tmp_path / "c.txt").write_text(text, "utf-8", newline="")
    (tmp_path / "empty.txt").write_bytes(b"")
    manifest = build(
        [str(tmp_path / "c.txt"), str(tmp_path / "empty.txt")],
        vocab_file, tmp_path / "out", eval_fraction=0.0,
    )  # fmt: skip
    counts = manifest["counts"]
    assert (counts["documents"], counts["sentences"]) == (2, 3)
    assert counts["nul_characters"] == 1
    assert counts["tokens"] == 12 and counts["unknown_tokens"] == 0


def test_a_corpus_without_documents_is_an_error(vocab_file, tmp_path):
    (tmp_path / "c.txt").write_text("\n \n", "utf-8")
    with pytest.raises(UserError, match="no document"):
        build(str(tmp_path / "c.txt"), vocab_file, tmp_path / "out")
    (tmp_path / "c.txt").write_text("的a。\n一。\n" * 9, "utf-8")
    with pytest.raises(UserError, match="share 1 leaves out 1 doc.*lower it"):
        build(
            str(tmp_path / "c.txt"), vocab_file, tmp_path / "few",
            min_han_share=1.0,
        )  # fmt: skip


def test_a_file_without_blank_lines_is_told(vocab_file, tmp_path, capsys):
    text = "的一是在不了有和人这。\n" * 2000
    (tmp_path / "c.txt").write_text(text, "utf-8")
    manifest = build(str(tmp_path / "c.txt"), vocab_file, tmp_path / "out")
    assert manifest["counts"]["sentences"] == 2000
    assert "c.txt has no blank line" in capsys.readouterr().err


def test_a_very_long_line_is_kept(vocab_file, tmp_path):
    text = "的" * 100_000 + "\n一。\n"
    (tmp_path / "c.txt").write_text(text, "utf-8")
    manifest = build(
        str(tmp_path / "c.txt"), vocab_file, tmp_path / "out", eval_fraction=0
    )
    rows = rows_of(tmp_path / "out", manifest)
    stored = sum(len(a) + len(b) for row in rows for a, b in row)
    assert stored == 100_002 - manifest["counts"]["dropped_tokens"] >= 100_001


def test_a_full_disk_is_one_sentence(texts, vocab_file, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "replace", _no_space)
    with pytest.raises(UserError, match="could not be written .*No space"):
        build(texts, vocab_file, tmp_path / "out")
    monkeypatch.undo()
    build(texts, vocab_file, tmp_path / "out")
    build(texts, vocab_file, tmp_path / "whole")
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


def _no_space(source, target):
    if str(target).endswith("7.part"):
        raise OSError(28, "No space left on device")
    os.rename(source, target)


STATIC = {"masking": "static", "dupe_factor": 3, "masked_lm_prob": 0.15,
          "max_predictions_per_seq": 9}  # fmt: skip


@pytest.mark.large
def test_classic_records_have_the_same_bytes_for_two_workers(
    texts, vocab_file, tmp_path
):
    for num_workers in (1, 2):
        build(texts, vocab_file, tmp_path / str(num_workers),
              num_workers=num_workers, **STATIC)  # fmt: skip
    assert files_of(tmp_path / "1") == files_of(tmp_path / "2")


def test_classic_records_are_masked_copies(texts, vocab_file, tmp_path):
    import tensorflow as tf

    manifest = build(
        texts, vocab_file, tmp_path / "out", short_seq_prob=0, **STATIC
    )
    sources = {}
    masks = set()
    for entry in manifest["shards"]:
        path = f"{tmp_path}/out/{entry['name']}"
        for data in records.read_records(path):
            feature = tf.train.Example.FromString(data).features.feature
            ints = {
                key: value.int64_list.value for key, value in feature.items()
            }
            weights = feature["masked_lm_weights"].float_list.value
            assert len(ints["input_ids"]) == 64 and len(weights) == 9
            restored = np.array(ints["input_ids"])
            chosen = np.array(weights) > 0
            places = np.array(ints["masked_lm_positions"])[chosen]
            restored[places] = np.array(ints["masked_lm_ids"])[chosen]
            length = sum(ints["input_mask"])
            assert not restored[length:].any()
            # Back in the order of the text, whichever way it was swapped.
            ends = np.flatnonzero(restored == 3)
            a, b = restored[1 : ends[0]], restored[ends[0] + 1 : ends[1]]
            if ints["next_sentence_labels"][0]:
                a, b = b, a
            key = (*a.tolist(), 3, *b.tolist())
            sources[key] = sources.get(key, 0) + 1
            masks.add((key, *places.tolist()))
    assert len(sources) == manifest["counts"]["pairs"]
    assert set(sources.values()) == {3}
    assert len(masks) > 2.5 * len(sources)
    # The same pairs as in compact records.
    compact = build(texts, vocab_file, tmp_path / "compact", short_seq_prob=0)
    pairs = {
        (*a.tolist(), 3, *b.tolist())
        for row in rows_of(tmp_path / "compact", compact)
        for a, b in row
    }
    assert pairs == set(sources)


@pytest.mark.large
def test_memory_does_not_grow_with_the_corpus(texts, vocab_file, tmp_path):
    """Peaks of the largest process for 2 MB and for 120 MB of text."""
    text = "".join(
        Path(path).read_text("utf-8") + "\n" for path in corpus_paths(texts)
    )
    code = (
        "import resource, subprocess, sys; "
        "subprocess.run(sys.argv[1:], check=True, capture_output=True); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    peaks = []
    for megabytes in (2, 120):
        path = tmp_path / f"{megabytes}.txt"
        with open(path, "w", encoding="utf-8") as stream:
            for _ in range(megabytes * 1_000_000 // len(text.encode())):
                stream.write(text)
        flags = flags_of(str(path), vocab_file, tmp_path / f"{megabytes}.out")
        done = subprocess.run(
            [sys.executable, "-c", code, sys.executable, "-m", MODULE, *flags,
             "--num_workers", "2"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        peaks.append(int(done.stdout) / 1000)  # MB, as Linux counts
    assert peaks[1] < 900
    assert peaks[1] - peaks[0] < 60, peaks


def corpus_paths(texts):
    return [file.path for file in corpus.find_files(texts)]


def test_of_two_builders_on_one_folder_one_wins(texts, vocab_file, tmp_path):
    """Two real processes; the second comes while the first one works."""
    output_dir = tmp_path / "out"
    command = [sys.executable, "-m", MODULE, "--unit_bytes", "200",
               *flags_of(texts, vocab_file, output_dir), "--num_workers", "1",
               "--segmenter", "none"]  # fmt: skip
    first = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        _wait_for_progress(first, output_dir, 3)
        assert first.poll() is None, "the first build was over too soon"
        first.send_signal(signal.SIGSTOP)
        second = subprocess.run(command, capture_output=True, text=True)
        first.send_signal(signal.SIGCONT)
        assert second.returncode == 2
        assert "out is in use by another build (process " in second.stderr
        assert second.stderr.count("\n") == 1
        assert first.wait(timeout=60) == 0
    finally:
        first.kill()
        first.communicate()
    told = build_pretraining_data.verify(str(output_dir), one_worker())
    assert "shards are intact" in told


def test_shards_that_do_not_hold_what_was_counted_are_refused(
    texts, vocab_file, tmp_path, monkeypatch
):
    """What two builders at once used to leave behind."""
    write_shard = shards.write_shard

    def lose_some(plan, subset, shard, blocks):
        return write_shard(plan, subset, shard, list(blocks)[:-1])

    monkeypatch.setattr(shards, "write_shard", lose_some)
    output_dir = tmp_path / "out"
    with pytest.raises(UserError, match=r"train shards hold \d+ of \d+ rec"):
        build(texts, vocab_file, output_dir)
    assert not (output_dir / "manifest.json").exists()
    monkeypatch.undo()
    build(texts, vocab_file, output_dir)
    manifest = json.loads((output_dir / "manifest.json").read_text())
    manifest["counts"]["eval_records"] += 1
    (output_dir / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="eval shards hold"):
        build_pretraining_data.verify(str(output_dir), one_worker())


def test_a_shard_that_changed_since_it_was_written_is_no_set(
    texts, vocab_file, tmp_path, monkeypatch
):
    write_shard = shards.write_shard

    def damage(plan, *rest):
        entry = write_shard(plan, *rest)
        path = Path(plan.output_dir, entry["name"])
        path.write_bytes(path.read_bytes()[:-1] + b"!")
        return entry

    monkeypatch.setattr(shards, "write_shard", damage)
    with pytest.raises(UserError, match="is not what was written"):
        build(texts, vocab_file, tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_verify_checks_the_vocabulary(texts, vocab_file, tmp_path):
    build(texts, vocab_file, tmp_path / "out")
    path = tmp_path / "out" / "vocab.txt"
    path.write_text(path.read_text("utf-8").replace("。", "，"), "utf-8")
    with pytest.raises(UserError, match="vocab.txt is not the vocabulary"):
        build_pretraining_data.verify(str(tmp_path / "out"), one_worker())
    path.unlink()
    with pytest.raises(UserError, match="vocab.txt does not exist"):
        build_pretraining_data.verify(str(tmp_path / "out"), one_worker())


def test_terms_and_contents_are_part_of_what_a_build_is(
    texts, vocab_file, tmp_path
):
    output_dir = str(tmp_path / "out")
    (tmp_path / "terms.txt").write_text("的一是\n", "utf-8")

    def plan_of(*dictionaries):
        return build_pretraining_data.make_plan(
            texts, vocab_file, output_dir,
            BuildConfig(segmenter="jieba", max_seq_length=64),
            user_dictionaries=dictionaries,
        )  # fmt: skip

    plain, with_terms = plan_of(), plan_of(f"{tmp_path}/terms.txt")
    assert plain.identity() != with_terms.identity()
    before = plain.identity()
    path = tmp_path / "a.txt"
    content = path.read_bytes()
    for begin in (0, len(content) - 3):  # the same size, another character
        changed = content[:begin] + "国".encode() + content[begin + 3 :]
        path.write_bytes(changed[: len(content)])
        assert plan_of().identity() != before
    path.write_bytes(content)
    assert plan_of().identity() == before


def test_a_large_file_is_known_by_both_ends(tmp_path):
    path = tmp_path / "large.txt"
    found = set()
    for at in (0, 1 << 16, (1 << 18) - 1):
        content = bytearray(b"a" * (1 << 18))
        content[at] = ord("b")
        path.write_bytes(content)
        found.add(shards._ends(corpus.find_files(str(path))[0]))
    assert len(found) == 3  # the middle one is as the file was


def test_a_corpus_that_changes_meanwhile_is_told(
    texts, vocab_file, tmp_path, monkeypatch
):
    write_shard = shards.write_shard

    def change(*rest):
        path = tmp_path / "a.txt"
        path.write_bytes(path.read_bytes() + "的一是。\n".encode())
        return write_shard(*rest)

    monkeypatch.setattr(shards, "write_shard", change)
    with pytest.raises(UserError, match="the corpus changed while it was"):
        build(texts, vocab_file, tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_corpus_of_very_many_files_stands_in_one_line(
    texts, vocab_file, tmp_path, monkeypatch
):
    expected = build(texts, vocab_file, tmp_path / "listed")
    monkeypatch.setattr(shards, "MANY_FILES", 1)
    manifest = build(texts, vocab_file, tmp_path / "hashed")
    assert manifest["shards"] == expected["shards"]
    assert manifest["input_file"] == [texts]
    inputs = manifest["identity"]["inputs"]
    assert (inputs["files"], len(expected["identity"]["inputs"])) == (2, 2)
    (tmp_path / "hashed" / manifest["shards"][0]["name"]).unlink()
    told = build_pretraining_data.verify(str(tmp_path / "hashed"), one_worker())
    assert "rebuilt records-00000" in told
    path = tmp_path / "a.txt"
    path.write_bytes(path.read_bytes().replace("的".encode(), "国".encode()))
    with pytest.raises(UserError, match="built differently .inputs.sha256"):
        build(texts, vocab_file, tmp_path / "hashed")


def test_terms_without_effect_are_named(texts, vocab_file, tmp_path, capsys):
    path = tmp_path / "terms.txt"
    path.write_text("的一是\n在不了 1 n\n\u200b\u200b\n的\t一\n", "utf-8")

    def make_plan():
        build_pretraining_data.make_plan(
            texts, vocab_file, str(tmp_path / "out"),
            BuildConfig(segmenter="jieba"), user_dictionaries=[str(path)],
        )  # fmt: skip
        return capsys.readouterr().err

    told = make_plan()
    assert "of 4 terms of the user dictionary have no effect: " in told
    assert r"'\u200b\u200b' (it has no token)" in told
    assert r"'的\t一' (it holds a tab" in told and told.count("\n") == 1
    path.write_text("的一是\n", "utf-8")
    assert make_plan() == ""


@pytest.mark.parametrize(
    "damage",
    [
        lambda m: m.clear(),
        lambda m: m.pop("counts"),
        lambda m: m["counts"].update(train_records="many"),
        lambda m: m.update(shards={}),
        lambda m: m["shards"][0].pop("sha256"),
        lambda m: m["shards"].append("records"),
        lambda m: m["shards"][0].update(records=None),
        lambda m: m["shards"][0].update(name="../a.txt"),
        lambda m: m.update(identity=None),
        lambda m: m.update(max_seq_length="64"),
    ],
)
def test_a_damaged_manifest_is_told(finished, tmp_path, damage):
    texts, vocab_file, output_dir = finished
    manifest = json.loads((output_dir / "manifest.json").read_text())
    damage(manifest)
    shutil.copytree(output_dir, tmp_path / "out")
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="manifest.json is damaged or of an"):
        build_pretraining_data.verify(str(tmp_path / "out"), one_worker())
    with pytest.raises(UserError, match="manifest.json is damaged or of an"):
        build(texts, vocab_file, tmp_path / "out")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A small corpus, its vocabulary and a finished set."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "vocab.txt").write_text(
        "\n".join([*SPECIALS, *"的一是。"]) + "\n"
    )
    (folder / "a.txt").write_text("的一是。\n一是的。\n\n" * 20, "utf-8")
    found = f"{folder}/a.txt", f"{folder}/vocab.txt", folder / "out"
    build(*found)
    return found


def test_files_of_the_user_are_neither_replaced_nor_removed(finished, tmp_path):
    texts, vocab_file, output_dir = finished
    for name, content in (
        ("vocab.txt", "[PAD]\n"),
        ("text_settings.json", "{}"),
        (".parts/mine", "x"),
    ):
        path = tmp_path / name.replace("/", "-") / name
        path.parent.mkdir(parents=True)
        path.write_text(content)
        folder = tmp_path / name.replace("/", "-")
        with pytest.raises(UserError, match=f"{path.name} is not of this.*cho"):
            build(texts, vocab_file, folder)
        assert path.read_text() == content
    # What a build would write there anyway may be there already.
    folder = tmp_path / "same"
    folder.mkdir()
    for name in ("vocab.txt", "text_settings.json"):
        shutil.copy(output_dir / name, folder / name)
    build(texts, vocab_file, folder)
    assert files_of(folder) == files_of(output_dir)


def test_what_differs_is_told_in_a_line(finished, tmp_path):
    texts, vocab_file, output_dir = finished
    shutil.copytree(output_dir, tmp_path / "out")
    names = [tmp_path / f"{'long' * 9}{i}.txt" for i in range(30)]
    for path in names:
        path.write_text("的一是。\n一是的。\n", "utf-8")
    with pytest.raises(
        UserError, match=r"inputs.a.txt was {.*missing.* more.: choose"
    ):
        build(f"{tmp_path}/long*.txt", vocab_file, tmp_path / "out")
    with pytest.raises(UserError) as error:
        build(f"{tmp_path}/long*.txt", vocab_file, tmp_path / "out")
    assert len(str(error.value)) < 1000
    (tmp_path / "out" / "eval-00000-of-00001.tfrecord").unlink()
    with pytest.raises(UserError, match="inputs.*: pass its corpus with --in"):
        build_pretraining_data.verify(
            str(tmp_path / "out"), one_worker(), [str(names[0])]
        )
