"""Where a user's cache is: what can be had or made again at any time."""

import os
import sys
from pathlib import Path

CACHE_VARIABLE = "ALBERT_TF2_CACHE"


def cache_folder() -> Path:
    """Returns where downloads and indexes are kept."""
    if os.environ.get(CACHE_VARIABLE):
        return Path(os.environ[CACHE_VARIABLE])
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "albert_tf2"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "albert_tf2"
