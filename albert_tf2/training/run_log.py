"""What a run shows: one source of numbers, four places.

metrics.jsonl      a row per logged step: `step`, `loss`, rates, speed
evaluation.jsonl   a row per evaluation on the held-out rows
tensorboard/       the same numbers as scalars
the terminal       a progress bar with rate, epoch, remaining time and losses,
                   or a line per logged step; after a minute, when it will end

Each step has one row, a row is always JSON (a number that is none is null),
and no row that could be read is ever dropped for one that could not.
"""

import contextlib
import functools
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from albert_tf2 import command_line, paths
from albert_tf2.errors import UserError

METRICS, EVALUATION = "metrics.jsonl", "evaluation.jsonl"
# Lines that are no rows are kept beside the file, under this ending.
DAMAGED = ".damaged"
# The speed of so many seconds tells when a run will end.
FORESIGHT_SECONDS = 60

Row = dict[str, Any]


def read_rows(path: paths.PathLike) -> list[Row]:
    """Reads the rows of a run's .jsonl file; what is no row is left out."""
    return _parse(_content(path))[0]


def _content(path: paths.PathLike) -> bytes:
    return paths.read_bytes(path) if paths.is_file(path) else b""


def _parse(content: bytes) -> tuple[list[Row], list[bytes]]:
    """Returns the rows, sorted, one per step, and the lines that are none.

    Of several rows of one step the last one counts. A last line without its
    end is no damage: a killed process was writing it.
    """
    rows: dict[int, Row] = {}
    damaged = []
    *lines, last = content.split(b"\n")
    for line in [*lines, last]:
        try:
            # NaN is no JSON, though Python reads and writes it.
            row = json.loads(line, parse_constant=lambda _: None)
            rows[_step(row)] = row
        except (ValueError, RecursionError):
            if line.strip() and line is not last:
                damaged.append(line)
    return [rows[step] for step in sorted(rows)], damaged


def _step(row: Any) -> int:
    step = row.get("step") if isinstance(row, dict) else None
    if type(step) is not int:
        raise ValueError("a row has a whole number as `step`")
    return step


def to_json(row: Row) -> str:
    """Returns a row as a line of JSON, with null for NaN and infinity."""
    finite = {
        key: None
        if isinstance(value, float) and not math.isfinite(value)
        else value
        for key, value in row.items()
    }
    return json.dumps(finite, ensure_ascii=False, allow_nan=False)


class RunLog:
    """Writes a run's numbers; on workers other than the first, nothing."""

    def __init__(
        self,
        workdir: paths.PathLike,
        *,
        train_steps: int,
        steps_per_epoch: float,
        work: Callable[[int], float] = float,
        enabled: bool = True,
        progress: bool = True,
        say: Callable[[str], None] = print,
    ):
        """Writes nothing yet.

        Args:
            workdir: The run's folder.
            train_steps: The last step.
            steps_per_epoch: How many steps see every row once.
            work: How much the steps before a step cost together, in any
                unit; some runs begin with cheap steps.
            enabled: False on workers that share the folder.
            progress: Whether to show a bar, and not a line per logged step.
            say: Takes lines for the console while there is no bar.
        """
        self.workdir = workdir
        self.train_steps = train_steps
        self.steps_per_epoch = steps_per_epoch
        self._work = work
        self.enabled = enabled
        self._progress = progress
        self._say = say
        self._step = 0
        self._bar: Any = None
        self._writer: Any = None
        # Since when, and since which step, the speed is measured.
        self._since: tuple[float, int] | None = None
        self._foretold = False

    def open(self, step: int) -> None:
        """Continues the files of a run.

        Args:
            step: Rows of later steps are dropped: the run that wrote them was
                killed before its next checkpoint. -1 drops all.
        """
        self._step = max(step, 0)
        if not self.enabled:
            return
        self._drop_rows_after(step)
        import tensorflow as tf  # here: drawing reads rows without it

        hear_xla_out()
        self._summary, self._errors = tf.summary, tf.errors
        folder = paths.join(self.workdir, "tensorboard")
        with self._told():
            self._writer = tf.summary.create_file_writer(
                paths.for_tensorflow(folder)
            )

    def _drop_rows_after(self, step: int) -> None:
        for name in (METRICS, EVALUATION):
            path = paths.join(self.workdir, name)
            content = _content(path)
            rows, damaged = _parse(content)
            self._put_aside(path, damaged)
            kept = [to_json(row) for row in rows if row["step"] <= step]
            text = "".join(f"{line}\n" for line in kept)
            if text.encode() != content:
                with paths.atomic_file(path) as stream:
                    stream.write(text)

    def _put_aside(self, path: str, damaged: Sequence[bytes]) -> None:
        if not damaged:
            return
        for line in damaged:
            text = line.decode("utf-8", "backslashreplace")
            paths.append_line(f"{path}{DAMAGED}", text)
        self.say(
            f"note: {len(damaged)} line(s) of {path} are damaged; they are in "
            f"{path}{DAMAGED} now, the other rows stay"
        )

    def say(self, text: str) -> None:
        """Prints a line, above the progress bar if there is one."""
        if not self.enabled:
            return
        if self._bar is None:
            self._say(text)
        else:
            self._bar.write(text, file=sys.stdout)
        sys.stdout.flush()

    def advance(self, steps: int, losses: dict[str, float]) -> None:
        """Moves the bar and shows the newest losses."""
        self._step += steps
        if not self.enabled:
            return
        self._foretell()
        if not self._progress:
            return
        if self._bar is None:
            self._bar = self._new_bar()
        else:
            self._bar.update(steps)
        shown = {name: f"{value:.3f}" for name, value in losses.items()}
        shown = {"epoch": self._epoch(self._step)} | shown
        self._bar.set_postfix(shown, refresh=False)

    def _epoch(self, step: int) -> str:
        last = self.train_steps / self.steps_per_epoch
        return f"{step / self.steps_per_epoch:.2f}/{last:.2f}"

    def _foretell(self) -> None:
        """Says once, when the speed is known, at what time the run ends."""
        if self._foretold:
            return
        now = time.monotonic()
        if self._since is None:  # after the first steps, which compile
            self._since = now, self._step
            return
        seconds, steps = now - self._since[0], self._step - self._since[1]
        if seconds < FORESIGHT_SECONDS or steps <= 0:
            return
        self._foretold = True
        left = self._seconds_left(self._step, steps / seconds)
        self.say(f"at this speed the run ends {_in(left)}")

    def _seconds_left(self, step: int, steps_per_second: float) -> float:
        """Returns how long the steps that are left take.

        Args:
            step: Where the run stands, above 0.
            steps_per_second: Its speed there.
        """
        ahead = self._work(self.train_steps) - self._work(step)
        a_step = self._work(step) - self._work(step - 1)
        return ahead / a_step / steps_per_second

    def _new_bar(self):
        # After the first steps: what compiling them prints cannot break it,
        # and its estimates know nothing of that time.
        from tqdm import tqdm

        seconds_left = self._seconds_left

        class Bar(tqdm):
            """Its own remaining time takes all steps for equally long."""

            @property
            def format_dict(self) -> dict[str, Any]:
                found = super().format_dict
                left, rate, new = "?", found["rate"], self.n - self.initial
                if rate is None and found["elapsed"]:
                    rate = new / found["elapsed"]
                if rate and new > 0:
                    seconds = seconds_left(int(self.n), rate)
                    left = self.format_interval(seconds)
                return {**found, "left": left}

        return Bar(
            bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{left},"
            " {rate_fmt}{postfix}]",
            total=self.train_steps,
            initial=self._step,
            unit="step",
            dynamic_ncols=True,
            smoothing=0.1,
            mininterval=1.0,
        )

    def rewind(self, step: int) -> None:
        """Goes back to a step: drops the rows of later ones."""
        self._step = step
        if self.enabled:
            self._drop_rows_after(step)
        if self._bar is not None:
            self._bar.n = step
            self._bar.refresh()

    def training(self, row: Row, scalars: dict[str, float]) -> None:
        """Writes a row of `metrics.jsonl` and its scalars.

        Args:
            row: With `step` and `loss`, and `steps_per_second` if known.
            scalars: More of them, for TensorBoard alone.
        """
        self._write(METRICS, row, "train", scalars)
        if self._progress:
            return
        speed = row.get("steps_per_second")
        left = ""
        if speed:
            minutes = self._seconds_left(row["step"], speed) / 60
            left = f"  {speed:.2f} steps/s  {minutes:.1f} min left"
        self.say(
            f"step {row['step']}/{self.train_steps}  "
            f"epoch {self._epoch(row['step'])}  loss {row['loss']:.4f}{left}"
        )

    def evaluation(self, row: Row) -> None:
        """Writes a row of `evaluation.jsonl` and its scalars."""
        self._write(EVALUATION, row, "eval", {})

    def _write(self, name: str, row: Row, group: str, scalars) -> None:
        if not self.enabled:
            return
        paths.append_line(paths.join(self.workdir, name), to_json(row))
        with self._told():
            with self._writer.as_default(step=row["step"]):
                for key, value in (row | scalars).items():
                    if key != "step" and isinstance(value, int | float):
                        self._summary.scalar(f"{group}/{key}", value)
            self._writer.flush()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Gives TensorBoard's files the sentence that all others have."""
        try:
            yield
        except self._errors.OpError as error:
            reason = " ".join(str(error.message).split())[-160:]
            raise UserError(
                f"{self.workdir}/tensorboard could not be written "
                f"({reason}): free some space and run the same command again"
            ) from error

    def close(self) -> None:
        """Ends the bar and flushes the files."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        if self._writer is not None:
            writer, self._writer = self._writer, None
            with self._told():
                writer.close()


def _in(seconds: float) -> str:
    """Says at what time, and in what time, something is done."""
    now = time.time()
    end = time.localtime(now + seconds)
    is_today = end[:3] == time.localtime(now)[:3]
    clock = time.strftime("%H:%M" if is_today else "%Y-%m-%d %H:%M", end)
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"at {clock}, in {f'{hours} h ' if hours else ''}{minutes} min"


@functools.cache
def hear_xla_out() -> None:
    """Lets XLA say to nobody what it says once in every process.

    Its first lines come with the first program that it compiles and heed no
    log level of TensorFlow's: they would stand in the middle of a run's. A
    TensorFlow that was built without XLA has no such lines.
    """
    import tensorflow as tf

    missing = contextlib.suppress(tf.errors.OpError)
    with missing, command_line.nobody_hears(), tf.device("CPU:0"):
        tf.function(lambda x: x + 1.0, jit_compile=True)(tf.constant(0.0))
