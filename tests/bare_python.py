"""A Python that has a few packages and no more, least of all TensorFlow."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


class BarePython:
    """Starts this Python without its site-packages.

    A folder of links stands in their place.
    """

    def __init__(self, folder, packages):
        """Links the packages that are named, and this project.

        Args:
            folder: A new one.
            packages: Names of top-level packages.
        """
        folder.mkdir()
        self._folder = folder
        for name in packages:
            found = Path(importlib.util.find_spec(name).origin).parent
            (folder / name).symlink_to(found)
            libraries = found.with_name(f"{name}.libs")  # as wheels have them
            if libraries.exists():
                (folder / libraries.name).symlink_to(libraries)
        package = folder / "albert_tf2"
        package.mkdir()
        for entry in (ROOT / "albert_tf2").iterdir():
            (package / entry.name).symlink_to(entry)
        for name in ("data", "hub_export", "configs", "starter"):
            if not (package / name).exists():
                (package / name).symlink_to(ROOT / name)

    def run(self, program, **options):
        """Runs a program; returns the finished process, with its output."""
        environment = {
            "PYTHONPATH": str(self._folder),
            "PATH": os.environ["PATH"],
        }
        return subprocess.run(
            # -S: no site-packages; -s: not the user's either.
            [sys.executable, "-S", "-s", "-c", program],
            env=environment,
            capture_output=True,
            text=True,
            **options,
        )
