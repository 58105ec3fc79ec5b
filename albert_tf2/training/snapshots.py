"""Checkpoints of a run: saved whole, restored exactly, damage survived."""

import shutil
from collections.abc import Callable
from pathlib import Path

import tensorflow as tf

from albert_tf2.errors import UserError

FOLDER, NAME = "checkpoints", "ckpt"


class Snapshots:
    """The newest few checkpoints under `workdir/checkpoints/ckpt-STEP`.

    TensorFlow writes a checkpoint under temporary names and lists it in the
    file `checkpoint` last, so a killed process leaves the older ones usable.
    """

    def __init__(
        self,
        checkpoint: tf.train.Checkpoint,
        workdir: Path,
        *,
        keep: int,
        worker: int = 0,
        report: Callable[[str], None] = print,
    ):
        """Looks at what there is.

        Args:
            checkpoint: What to save.
            workdir: The run's folder.
            keep: How many checkpoints stay.
            worker: Only worker 0 keeps what it writes; the others must take
                part in saving, and write to a folder that is thrown away.
            report: Receives a sentence about damage.
        """
        self.checkpoint = checkpoint
        self.folder = workdir / FOLDER
        self.report = report
        self._scratch = None
        target = self.folder
        if worker:
            target = self._scratch = workdir / f".worker-{worker}"
        self._manager = tf.train.CheckpointManager(
            checkpoint, str(target), max_to_keep=keep, checkpoint_name=NAME
        )

    @property
    def prefixes(self) -> list[str]:
        """The checkpoints that are listed, oldest first."""
        state = tf.train.get_checkpoint_state(str(self.folder))
        return list(state.all_model_checkpoint_paths) if state else []

    def restore_newest(self) -> str | None:
        """Restores the newest checkpoint that is whole; None if none is."""
        prefixes = self.prefixes
        for prefix in reversed(prefixes):
            try:
                status = self.checkpoint.restore(prefix)
                status.assert_existing_objects_matched()
                return prefix
            except Exception as error:  # every reader raises its own kind
                reason = str(error).strip().splitlines()[0][:160]
                self.report(
                    f"checkpoint {prefix} is damaged or of another model "
                    f"({type(error).__name__}: {reason}); trying the one "
                    "before"
                )
        if prefixes:
            raise UserError(
                f"{self.folder}: none of {len(prefixes)} checkpoints can be "
                "restored; if the model or optimizer was changed on purpose, "
                "choose another workdir and pass --init_checkpoint"
            )
        return None

    def save(self, step: int) -> str:
        """Saves under `ckpt-STEP`, then drops what is over the limit."""
        try:
            prefix = self._manager.save(checkpoint_number=step)
        except (tf.errors.OpError, OSError) as error:
            last = self.prefixes[-1] if self.prefixes else "none"
            self._remove_leftovers(step)
            reason = str(error).strip().splitlines()[0][:160]
            raise UserError(
                f"{self.folder}/{NAME}-{step} could not be written "
                f"({reason}): free some space and run the same command "
                f"again; the last good checkpoint is {last}"
            ) from error
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
        return prefix

    def _remove_leftovers(self, step: int) -> None:
        for path in self.folder.glob(f"{NAME}-{step}*"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
