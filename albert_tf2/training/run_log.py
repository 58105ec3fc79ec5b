"""What a run shows: one source of numbers, four places.

metrics.jsonl      a row per logged step: `step`, `loss`, rates, speed
evaluation.jsonl   a row per evaluation on the held-out documents
tensorboard/       the same numbers as scalars
the terminal       a progress bar with rate, remaining time and losses
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from albert_tf2 import files

METRICS, EVALUATION = "metrics.jsonl", "evaluation.jsonl"


def read_rows(path: files.PathLike) -> list[dict[str, Any]]:
    """Reads the rows of a .jsonl file; an unfinished last row is left out."""
    path = Path(path)
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break  # a killed process was writing it
    return rows


class RunLog:
    """Writes a run's numbers; on workers other than the first, nothing."""

    def __init__(
        self,
        workdir: Path,
        *,
        start_step: int,
        train_steps: int,
        enabled: bool = True,
        progress: bool = True,
    ):
        """Continues the files of a run.

        Args:
            workdir: The run's folder.
            start_step: Rows of later steps are dropped: the run that wrote
                them was killed before its next checkpoint.
            train_steps: The end of the progress bar.
            enabled: False on workers that share the folder.
            progress: Whether to show the bar.
        """
        self.workdir = workdir
        self.enabled = enabled
        self._bar = self._writer = None
        if not enabled:
            return
        for name in (METRICS, EVALUATION):
            path = workdir / name
            rows = [r for r in read_rows(path) if r["step"] <= start_step]
            with files.atomic_file(path) as stream:
                stream.writelines(json.dumps(row) + "\n" for row in rows)
        import tensorflow as tf  # here: drawing reads rows without it

        self._summary = tf.summary
        self._writer = tf.summary.create_file_writer(
            str(workdir / "tensorboard")
        )
        if progress:
            from tqdm import tqdm

            self._bar = tqdm(
                total=train_steps,
                initial=max(start_step, 0),
                unit="step",
                dynamic_ncols=True,
                smoothing=0.1,
                mininterval=1.0,
            )

    def say(self, text: str) -> None:
        """Prints a line above the progress bar."""
        if not self.enabled:
            return
        if self._bar is not None:
            self._bar.write(text, file=sys.stdout)
        else:
            print(text)
        sys.stdout.flush()

    def advance(self, steps: int, losses: dict[str, float]) -> None:
        """Moves the bar and shows the newest losses."""
        if self._bar is not None:
            shown = {name: f"{value:.3f}" for name, value in losses.items()}
            self._bar.set_postfix(shown, refresh=False)
            self._bar.update(steps)

    def rewind(self, step: int) -> None:
        """Sets the bar back, after a rollback."""
        if self._bar is not None:
            self._bar.n = step
            self._bar.refresh()

    def training(
        self, row: dict[str, Any], histograms: dict[str, Any] | None = None
    ) -> None:
        """Writes a row of `metrics.jsonl` and its scalars.

        Args:
            row: With `step`.
            histograms: More scalars, for TensorBoard alone.
        """
        self._write(METRICS, row, "train", histograms or {})

    def evaluation(self, row: dict[str, Any]) -> None:
        """Writes a row of `evaluation.jsonl` and its scalars."""
        self._write(EVALUATION, row, "eval", {})

    def _write(self, name, row, group, more) -> None:
        if not self.enabled:
            return
        with open(self.workdir / name, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
        with self._writer.as_default(step=row["step"]):
            for key, value in (row | more).items():
                if key != "step":
                    self._summary.scalar(f"{group}/{key}", value)
        self._writer.flush()

    def close(self) -> None:
        """Ends the bar and flushes the files."""
        if self._bar is not None:
            self._bar.close()
        if self._writer is not None:
            self._writer.close()


class Timer:
    """Wall time of training steps alone, without the first, traced call."""

    def __init__(self):
        self.steps, self.seconds, self._traced = 0, 0.0, False

    def start(self, steps: int) -> None:
        self._steps, self._began = steps, time.perf_counter()

    def stop(self) -> None:
        if self._traced:
            self.steps += self._steps
            self.seconds += time.perf_counter() - self._began
        self._traced = True

    def rates(self, **per_step: float) -> dict[str, float]:
        """Returns `<name>_per_second` since the last call, if known."""
        steps, seconds = self.steps, self.seconds
        self.steps, self.seconds = 0, 0.0
        if not steps:
            return {}
        speed = steps / seconds
        return {"steps_per_second": speed} | {
            f"{name}_per_second": value * speed
            for name, value in per_step.items()
        }
