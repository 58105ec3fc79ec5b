"""LAMB, which not every tested line of TensorFlow has (`.ci/line`)."""

from importlib import util

HAS_LAMB = any(map(util.find_spec, ("official", "tensorflow_addons")))
# What pre-training uses on the line under test.
OPTIMIZER = "lamb" if HAS_LAMB else "adamw"
