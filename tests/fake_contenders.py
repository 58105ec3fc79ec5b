"""Contenders that compute nothing: `python fake_contenders.py NAME ASKED`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from measuring import Contender, serve  # noqa: E402


def steady(asked):
    """Says what it was asked to, and prints in between."""
    print("noise")

    def turn():
        print("more noise")
        return dict(asked.turn)

    return Contender(turn)


def dies(asked):
    def turn():
        raise RuntimeError("no memory left")

    return Contender(turn)


if __name__ == "__main__":
    serve({"steady": steady, "dies": dies})
