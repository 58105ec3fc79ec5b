"""Checkpoints of a run: saved whole, restored exactly, damage survived."""

import re
from collections.abc import Callable

import tensorflow as tf

from albert_tf2 import paths
from albert_tf2.errors import UserError

FOLDER, NAME, LIST = "checkpoints", "ckpt", "checkpoint"
# The parts of a checkpoint, and what a killed process leaves: ckpt-8_temp.
_FILE = re.compile(rf"{NAME}-(\d+)(\.index|\.data-|_temp).*")


def reason_of(error: Exception) -> str:
    """Returns the first line of what TensorFlow or the system says."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:160]


class Snapshots:
    """The newest few checkpoints under `workdir/checkpoints/ckpt-STEP`.

    TensorFlow writes a checkpoint under temporary names and its index last,
    so what has an index is whole. The folder itself is looked at: the file
    `checkpoint`, which lists them for other programs, may be lost or cut off
    on the way from another machine.
    """

    def __init__(
        self,
        checkpoint: tf.train.Checkpoint,
        workdir: paths.PathLike,
        *,
        keep: int,
        worker: int = 0,
        report: Callable[[str], None] = print,
    ):
        """Writes and reads nothing yet.

        Args:
            checkpoint: What to save.
            workdir: The run's folder, local or one that TensorFlow serves.
            keep: How many checkpoints stay.
            worker: Only worker 0 keeps what it writes; the others must take
                part in saving, and write to a folder that is thrown away.
            report: Receives a sentence about damage.
        """
        self.checkpoint = checkpoint
        self.folder = paths.join(paths.for_tensorflow(workdir), FOLDER)
        self.keep = keep
        self.report = report
        self._scratch = None
        if worker:
            self._scratch = paths.join(
                paths.for_tensorflow(workdir), f".worker-{worker}"
            )

    def _files(self) -> list[tuple[int, str]]:
        """Returns the files of all checkpoints, each with its step."""
        found = map(_FILE.fullmatch, paths.names(self.folder))
        return [(int(match[1]), match[0]) for match in found if match]

    def _prefix(self, step: int) -> str:
        return paths.join(self.folder, f"{NAME}-{step}")

    @property
    def steps(self) -> list[int]:
        """The steps of the checkpoints that are there, oldest first."""
        return sorted(
            step
            for step, name in self._files()
            if name == f"{NAME}-{step}.index"
        )

    @property
    def newest(self) -> str:
        """The prefix of the newest checkpoint; empty before the first."""
        steps = self.steps
        return self._prefix(steps[-1]) if steps else ""

    def restore_newest(self, at_most: int | None = None) -> str | None:
        """Restores the newest checkpoint that is whole; None if none is.

        Args:
            at_most: The last step that may be restored.
        """
        steps = self.steps
        if at_most is not None:
            steps = [step for step in steps if step <= at_most]
        for step in reversed(steps):
            prefix = self._prefix(step)
            try:
                self._check_files(step)
                status = self.checkpoint.read(prefix)
                status.assert_existing_objects_matched()
                return prefix
            except Exception as error:  # every reader raises its own kind
                self.report(
                    f"checkpoint {prefix} is damaged or of another model "
                    f"({type(error).__name__}: {reason_of(error)}); trying "
                    "the one before"
                )
        if steps:
            raise UserError(
                f"{self.folder}: none of {len(steps)} checkpoints can be "
                "restored; if the model or optimizer was changed on purpose, "
                "choose another workdir and pass --init_checkpoint"
            )
        return None

    def _check_files(self, step: int) -> None:
        """Raises for what is no file: TensorFlow waits for a pipe's writer."""
        for name in paths.names(self.folder):
            if name.startswith(f"{NAME}-{step}."):
                paths.open_binary(paths.join(self.folder, name)).close()

    def save(self, step: int) -> str:
        """Saves under `ckpt-STEP`, then drops what is over the limit."""
        prefix = self._prefix(step)
        if self._scratch is not None:
            self.checkpoint.write(paths.join(self._scratch, NAME))
            paths.remove_folder(self._scratch)
            return prefix
        before = [other for other in self.steps if other != step]
        try:
            self.checkpoint.write(prefix)
            # Those of later steps could not be restored, or the run had gone
            # on from them.
            kept = [other for other in before if other < step]
            kept = [*kept, step][-self.keep :]
            self._list(kept)
        except (tf.errors.OpError, OSError, UserError) as error:
            self._remove(lambda other: other == step)
            last = self._prefix(before[-1]) if before else "none"
            raise UserError(
                f"{prefix} could not be written ({reason_of(error)}): free "
                "some space and run the same command again; the last good "
                f"checkpoint is {last}"
            ) from error
        self._remove(lambda other: other not in kept)
        return prefix

    def _list(self, steps: list[int]) -> None:
        """Writes the file `checkpoint`, for `tf.train.latest_checkpoint`."""
        lines = [f'model_checkpoint_path: "{NAME}-{steps[-1]}"'] + [
            f'all_model_checkpoint_paths: "{NAME}-{step}"' for step in steps
        ]
        with paths.atomic_file(paths.join(self.folder, LIST)) as stream:
            stream.writelines(f"{line}\n" for line in lines)

    def _remove(self, is_unwanted: Callable[[int], bool]) -> None:
        for step, name in self._files():
            if is_unwanted(step):
                path = paths.join(self.folder, name)
                if paths.is_dir(path):
                    paths.remove_folder(path)
                else:
                    paths.remove_file(path)
