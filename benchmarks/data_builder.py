"""Measures the record builder, and albert_zh's beside it.

Prints MB of text per CPU-second for each stage, the whole command with one
and two workers (CPU time, wall time, peak memory of its largest process),
bytes per record, and, given a checkout of albert_zh and a Python with
TensorFlow 1.15 and jieba, the same for albert_zh's builder. Start-up time
(imports, vocabulary) is measured on a corpus of one document and subtracted
on both sides. CPU seconds are of all processes together.

python benchmarks/data_builder.py --input_file 'corpus/*.txt' --vocab_file vocab.txt --albert_zh ../albert_zh --albert_zh_python py37/bin/python
"""  # noqa: E501

import json
import os
import struct
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measuring import Usage, run_and_measure  # beside this

from albert_tf2 import command_line
from albert_tf2.data import (
    build_pretraining_data,
    part_files,
    parts,
    reading,
    recognition,
    units,
)
from albert_tf2.data.build_config import BuildConfig
from albert_tf2.data.read_config import ReadConfig
from albert_tf2.data.words import default_segmenter

BUILDER = "albert_tf2.data.build_pretraining_data"
ONE_DOCUMENT = "今天天气很好。\n我们去公园。\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the command line and prints the figures as they come."""
    parser = command_line.parser(__doc__)
    add = parser.add_argument
    add("--input_file", nargs="+", required=True)
    add("--vocab_file", required=True)
    add("--max_seq_length", type=int, default=512)
    add("--segmenter", default=default_segmenter())
    add("--workers", type=int, nargs="*", default=[1, 2])
    add(
        "--repeat",
        type=int,
        default=1,
        help="write the corpus so many times before building, for memory",
    )
    add("--albert_zh", help="a checkout of brightmart/albert_zh")
    add("--albert_zh_python", help="with TensorFlow 1.15 and jieba")
    add(
        "--megabytes",
        type=float,
        default=1.0,
        help="of the corpus for albert_zh, which holds all in memory",
    )
    add("--dupe_factor", type=int, default=1, help="of albert_zh")
    flags = parser.parse_args(argv)  # fmt: skip
    files = recognition.find(flags.input_file, ReadConfig())
    with tempfile.TemporaryDirectory() as folder:
        measure_stages(flags, files, folder)
        ours = measure_command(flags, files, folder)
        if flags.albert_zh:
            measure_albert_zh(flags, files, folder, ours)
    return 0


def measure_stages(flags: Any, files: Sequence, folder: str) -> None:
    """Runs the stages in this process, after one unit to warm up."""
    plan = build_pretraining_data.make_plan(
        [file.path for file in files],
        flags.vocab_file,
        folder,
        BuildConfig(
            max_seq_length=flags.max_seq_length, segmenter=flags.segmenter
        ),
    )
    builder = plan.part_builder()
    found = [unit for file in files for unit in units.of_file(file)]
    builder.build(found[0])
    builder.seconds = dict.fromkeys(parts.STAGES, 0.0)
    total = 0
    path = os.path.join(folder, "one.part")
    for unit in found:
        part = builder.build(unit)
        begin = time.process_time()
        part_files.write_part(path, part)
        builder.seconds["write"] += time.process_time() - begin
        total += part.counts["bytes"]
    every = sum(builder.seconds.values())
    print(f"stages, one process, {total / 1e6:.1f} MB:")
    for name, seconds in builder.seconds.items():
        print(
            f"  {name:9} {total / 1e6 / seconds:8.1f} MB per CPU-second "
            f"({100 * seconds / every:4.1f} %)"
        )
    print(f"  all       {total / 1e6 / every:8.1f} MB per CPU-second")


def measure_command(
    flags: Any, files: Sequence, folder: str
) -> dict[str, float]:
    """Times the whole command; returns its rates with one worker."""
    paths = [file.path for file in files]
    if flags.repeat > 1:
        paths = [_repeated(paths, flags.repeat, folder)]
    total = sum(os.path.getsize(path) for path in paths)
    begin = _ours(flags, [_one_document(folder)], folder, 1)[0]
    print(f"command, {total / 1e6:.1f} MB (start-up {begin.cpu:.2f} CPU-s):")
    found = {}
    walls = {}
    for workers in flags.workers:
        usage, counts, size = _ours(flags, paths, folder, workers)
        cpu = usage.cpu - begin.cpu
        records = counts["train_records"] + counts["eval_records"]
        walls[workers] = usage.wall
        print(
            f"  {workers} workers: {total / 1e6 / cpu:.2f} MB, "
            f"{counts['pairs'] / cpu:,.0f} pairs, {records / cpu:,.0f} "
            f"records per CPU-second; {usage.wall:.1f} s, largest process "
            f"{usage.peak_mb:.0f} MB; {size / records:.0f} bytes per record, "
            f"{size / counts['pairs']:.0f} per pair, padding "
            f"{100 * counts['padding_tokens'] / records / flags.max_seq_length:.1f} %"  # noqa: E501
        )
        found = found or {
            "megabytes": total / 1e6 / cpu, "pairs": counts["pairs"] / cpu
        }  # fmt: skip
    for workers in flags.workers[1:]:
        ratio = walls[flags.workers[0]] / walls[workers]
        print(
            f"  {ratio:.2f} times as fast with {workers} workers as with "
            f"{flags.workers[0]} (wall, start-up included)"
        )
    return found


def _ours(
    flags: Any, paths: Sequence[str], folder: str, workers: int
) -> tuple[Usage, dict[str, int], int]:
    output_dir = os.path.join(folder, f"ours{time.monotonic_ns()}")
    usage = run_and_measure(
        [sys.executable, "-m", BUILDER, "--input_file", *paths,
         "--vocab_file", flags.vocab_file, "--output_dir", output_dir,
         "--max_seq_length", str(flags.max_seq_length),
         "--segmenter", flags.segmenter, "--num_workers", str(workers)],
    )  # fmt: skip
    manifest = json.loads(Path(output_dir, "manifest.json").read_text("utf-8"))
    size = sum(entry["bytes"] for entry in manifest["shards"])
    for path in Path(output_dir).iterdir():
        path.unlink()
    return usage, manifest["counts"], size


def measure_albert_zh(
    flags: Any, files: Sequence, folder: str, ours: dict[str, float]
) -> None:
    """Times albert_zh on the first megabytes of the corpus."""
    sample = os.path.join(folder, "sample.txt")
    limit = int(flags.megabytes * 1e6)
    with open(sample, "wb") as stream:
        for document in reading.read_documents(files):
            stream.write("\n".join([*document, "", ""]).encode())
            if stream.tell() >= limit:
                break
        size = stream.tell()

    def run(path: str, dupe_factor: int) -> tuple[Usage, int, int]:
        output = os.path.join(folder, "albert_zh.tfrecord")
        usage = run_and_measure(
            [flags.albert_zh_python, "create_pretraining_data.py",
             f"--input_file={path}", f"--output_file={output}",
             f"--vocab_file={os.path.abspath(flags.vocab_file)}",
             "--do_whole_word_mask=True", "--do_lower_case=True",
             f"--max_seq_length={flags.max_seq_length}",
             f"--max_predictions_per_seq={flags.max_seq_length // 10}",
             "--masked_lm_prob=0.10", f"--dupe_factor={dupe_factor}"],
            cwd=flags.albert_zh,
        )  # fmt: skip
        return usage, count_records(output), os.path.getsize(output)

    begin = run(_one_document(folder), 1)[0]
    usage, instances, written = run(sample, flags.dupe_factor)
    cpu = usage.cpu - begin.cpu
    print(
        f"albert_zh, {size / 1e6:.1f} MB, dupe_factor {flags.dupe_factor} "
        f"(start-up {begin.cpu:.2f} CPU-s): {size / 1e6 / cpu:.3f} MB of "
        f"text, {instances / cpu:,.0f} instances per CPU-second; largest "
        f"process {usage.peak_mb:.0f} MB; {written / instances:.0f} bytes "
        "per instance"
    )
    text = ours["megabytes"] / (size / 1e6 / cpu)
    pairs = ours["pairs"] / (instances / cpu)
    print(
        f"this builder: {text:.1f} times its MB of text, {pairs:.1f} times "
        "its instances per CPU-second"
    )


def count_records(path: str) -> int:
    """Counts the frames of a TFRecord file."""
    count = 0
    with open(path, "rb") as stream:
        while head := stream.read(12):
            stream.seek(struct.unpack("<Q", head[:8])[0] + 4, os.SEEK_CUR)
            count += 1
    return count


def _one_document(folder: str) -> str:
    path = os.path.join(folder, "one.txt")
    Path(path).write_text(ONE_DOCUMENT, "utf-8")
    return path


def _repeated(paths: Sequence[str], times: int, folder: str) -> str:
    path = os.path.join(folder, "repeated.txt")
    with open(path, "wb") as stream:
        for _ in range(times):
            for source in paths:
                stream.write(Path(source).read_bytes())
                stream.write(b"\n")
    return path


if __name__ == "__main__":
    command_line.run(main)
