"""Kills pre-training and fine-tuning at random moments, again and again.

A small run goes through once undisturbed. Then the same command is started,
killed after a random time, and started again, until so many kills have met it
and it has ended by itself. Its rows of losses, its evaluations and every
weight must equal the undisturbed run's, bit for bit; nothing else may be left
behind. Each start must end with 0, with the signal, or, after SIGTERM, with
75.

python benchmarks/kill_anything.py --kills 50 --finetune_kills 30 --minutes 60
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from albert_tf2 import command_line
from albert_tf2.errors import UserError

# Of an undisturbed run's time: also kills while TensorFlow loads or ends.
LATEST_KILL = 1.1
PREEMPTED = 75


class Problem(NamedTuple):
    """A command that is to be killed.

    Attributes:
        name: For the figures.
        command: It, without the workdir's path at its end.
        weights: From a workdir to the prefix of its final weights.
    """

    name: str
    command: list[str]
    weights: Callable[[Path], str]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs both harnesses; the exit code is 1 if anything was lost."""
    parser = command_line.parser(__doc__)
    add = parser.add_argument
    add("--kills", type=int, default=50, help="of pre-training (default: 50)")
    add("--finetune_kills", type=int, default=30, help="(default: 30)")
    add("--signal", choices=("KILL", "TERM"), default="KILL")
    add("--seed", type=int, default=0, help="of the moments")
    add("--minutes", type=float, default=60, help="at most, of both together")
    add("--workdir", help="where the runs lie; kept if named")
    flags = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(flags.workdir or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        rng = random.Random(flags.seed)
        ends = time.monotonic() + 60 * flags.minutes
        lost = 0
        for problem, kills in problems(folder, flags):
            if kills:
                lost += not harass(problem, kills, folder, flags, rng, ends)
    return 1 if lost else 0


def problems(
    folder: Path, flags: argparse.Namespace
) -> Iterable[tuple[Problem, int]]:
    """Yields what is to be killed, and how often."""
    sample = resources.files("albert_tf2.data") / "sample"
    records = folder / "records"
    vocabulary = folder / "vocab.txt"
    module = [sys.executable, "-m"]
    _must_succeed(
        [*module, "albert_tf2.data.vocabulary", "--input_file",
         f"{sample}/corpus/*.txt", "--output", str(vocabulary),
         "--vocab_size", "3000"]
    )  # fmt: skip
    _must_succeed(
        [*module, "albert_tf2.data.build_pretraining_data", "--input_file",
         f"{sample}/corpus/*.txt", "--vocab_file", str(vocabulary),
         "--output_dir", str(records), "--max_seq_length", "64"]
    )  # fmt: skip
    settings = dict(
        model="albert_quickstart_zh", vocab_size_from_data="true",
        max_seq_length=64, max_predictions_per_seq=10, global_batch_size=8,
        train_steps=60, warmup_steps=5, learning_rate=1e-3, log_every=1,
        checkpoint_every=5, eval_every=20, steps_per_loop=1,
    )  # fmt: skip
    pretrain = [
        *module, "albert_tf2.pretrain", "--data_dir", str(records),
        "--strategy", "one_device",
        *(f"--set={key}={value}" for key, value in settings.items()),
    ]  # fmt: skip
    yield Problem("pretrain", pretrain, _pretrained), flags.kills
    settings = dict(
        max_seq_length=32, global_batch_size=8, max_train_steps=60,
        max_eval_rows=50, log_every=1, checkpoint_every=5, eval_every=20,
    )  # fmt: skip
    finetune = [
        *module, "albert_tf2.finetune", "--task", "lcqmc",
        "--data_dir", f"{sample}/pairs", "--strategy", "one_device",
        "--init_checkpoint", str(folder / "pretrain" / "whole"),
        *(f"--set={key}={value}" for key, value in settings.items()),
    ]  # fmt: skip
    yield Problem("finetune", finetune, _tuned), flags.finetune_kills


def _must_succeed(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise UserError(
            f"{' '.join(command[1:4])} failed: {done.stderr[-500:]}"
        )


def _pretrained(workdir: Path) -> str:
    import tensorflow as tf

    return tf.train.latest_checkpoint(str(workdir / "checkpoints"))


def _tuned(workdir: Path) -> str:
    return str(workdir / "model" / "model")


def harass(
    problem: Problem,
    kills: int,
    folder: Path,
    flags: argparse.Namespace,
    rng: random.Random,
    ends: float,
) -> bool:
    """Kills a command so many times; tells whether nothing was lost."""
    place = folder / problem.name
    whole, killed = place / "whole", place / "killed"
    began = time.monotonic()
    _must_succeed([*problem.command, "--workdir", str(whole)])
    takes = time.monotonic() - began
    number = getattr(signal, f"SIG{flags.signal}")
    met = rounds = compared = 0
    wrong: list[str] = []
    while met < kills and time.monotonic() < ends and not wrong:
        # A run that ended is begun anew: there are more kills than steps.
        rounds += 1
        workdir = killed.with_name(f"killed{rounds}")
        while time.monotonic() < ends:
            is_last = met >= kills
            wait = None if is_last else rng.uniform(0, LATEST_KILL * takes)
            command = [*problem.command, "--workdir", str(workdir)]
            code, said = start(command, wait, number)
            if code == 0:
                wrong += differences(problem, whole, workdir)
                compared += 1
                break
            if code not in (-signal.SIGKILL, -signal.SIGTERM, PREEMPTED):
                wrong.append(f"exit code {code}: {said[-300:]}")
                break
            met += 1
    print(
        f"{problem.name}: {met} of {kills} SIG{flags.signal}s in {rounds} runs "
        f"of {takes:.0f} s, {time.monotonic() - began:.0f} s in all; "
        f"{compared} runs compared: {'; '.join(wrong) or 'all bits equal'}"
        + ("" if met >= kills else " (the time was over)"),
        flush=True,
    )
    return not wrong and met >= kills


def start(
    command: list[str], wait: float | None, number: signal.Signals
) -> tuple[int, str]:
    """Starts a command, and sends a signal after a time, if one is given."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        said = process.communicate(timeout=wait)[1]
    except subprocess.TimeoutExpired:
        process.send_signal(number)
        said = process.communicate()[1]
    return process.returncode, said


def differences(problem: Problem, whole: Path, killed: Path) -> list[str]:
    """Returns what of a run is not as in the undisturbed one."""
    found = []
    for name in ("metrics.jsonl", "evaluation.jsonl"):
        if rows(whole / name) != rows(killed / name):
            found.append(f"{name} differs")
    names = ({p.name for p in folder.iterdir()} for folder in (whole, killed))
    if (left := set.symmetric_difference(*names)) - {"worker-0"}:
        found.append(f"files differ: {sorted(left)}")
    ours, theirs = (weights(problem.weights(f)) for f in (whole, killed))
    if set(ours) != set(theirs):
        found.append("other weights are there")
    unlike = [n for n in ours if n in theirs and not _equal(ours[n], theirs[n])]
    if unlike:
        found.append(f"{len(unlike)} weights differ, {unlike[0]} first")
    return found


def _equal(ours: np.ndarray, theirs: np.ndarray) -> bool:
    return ours.tobytes() == theirs.tobytes()


def rows(path: Path) -> list[dict[str, Any]]:
    """Returns the rows of a log without what a clock decides."""
    if not path.exists():
        return []
    parsed = map(json.loads, path.read_text("utf-8").splitlines())
    timed = ("per_second", "share_of", "seconds")
    return [
        {k: v for k, v in row.items() if not any(t in k for t in timed)}
        for row in parsed
    ]


def weights(prefix: str) -> dict[str, np.ndarray]:
    """Returns the arrays of a checkpoint."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(prefix)
    return {
        name: np.asarray(reader.get_tensor(name))
        for name in reader.get_variable_to_shape_map()
        if "OBJECT_GRAPH" not in name
    }


if __name__ == "__main__":
    command_line.run(main)
