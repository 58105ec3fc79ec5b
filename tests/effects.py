"""Proofs that a setting has its effect, one for each field of a class.

A file of proofs makes one table and two tests:

    EFFECTS = Effects(BuildConfig)

    @EFFECTS.proves("seed")
    def _(lab):
        assert lab.rows(seed=1) != lab.rows(seed=2)

    @pytest.mark.parametrize("name", EFFECTS.names)
    def test_each_field_has_its_effect(name, lab):
        EFFECTS.check(name, lab)

    @pytest.mark.large
    @pytest.mark.parametrize("name", EFFECTS.names)
    def test_each_proof_fails_when_its_field_is_ignored(name, lab):
        EFFECTS.check_ignored(name, lab)

The names come from the class, so a field without a proof fails the suite. The
long test runs each proof once more while every reader of the field gets the
value that the proof compares with: it must fail then.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from albert_tf2 import settings

# Of the model that stands in for a whole one where only its update counts.
KERNEL, BIAS = [[0.5, -1.0], [2.0, 0.1]], [0.3, -0.2]
# Of the bias, then of the kernel: a module names its variables in order.
GRADIENTS = ([0.4, -0.7], [[0.6, 0.2], [-1.5, 3.0]])


def tiny_model() -> Any:
    """Returns two variables, one that decays and one that does not."""
    import tensorflow as tf

    model = tf.Module()
    model.kernel = tf.Variable(KERNEL, name="dense/kernel")
    model.bias = tf.Variable(BIAS, name="dense/bias")
    model.encoder = None
    model.count_params = lambda: 6
    model.get_weights = lambda: [model.kernel.numpy(), model.bias.numpy()]
    return model


def apart(found: Any, before: Any) -> float:
    """Returns how far weights lie from others."""
    return max(
        abs(new - old).max() for new, old in zip(found, before, strict=True)
    )


Proof = Callable[[Any], None]


class _Ignored:
    """Stands in a field's place: takes any value, and gives always one."""

    def __init__(self, value: Any):
        self.value = value

    def __get__(self, instance: Any, owner: type) -> Any:
        return self.value

    def __set__(self, instance: Any, value: Any) -> None:
        pass


@contextlib.contextmanager
def ignored(cls: type, name: str, value: Any) -> Iterator[None]:
    """Makes all instances of a class answer one value for a field."""
    own = name in vars(cls)
    before = vars(cls).get(name)
    setattr(cls, name, _Ignored(value))
    try:
        yield
    finally:
        if own:
            setattr(cls, name, before)
        else:
            delattr(cls, name)


class Effects:
    """The proofs of one class of settings."""

    def __init__(self, cls: type, base: Mapping[str, Any] | None = None):
        """Creates an empty table.

        Args:
            cls: The class.
            base: What the proofs compare with, where it is not the default.
        """
        self.cls = cls
        self.base = dict(base or {})
        self.names = tuple(settings.of(cls))
        self.proofs: dict[str, Proof] = {}

    def proves(self, *names: str) -> Callable[[Proof], Proof]:
        """Enters a proof for one field, or for some that it breaks with."""

        def enter(proof: Proof) -> Proof:
            for name in names:
                assert name in self.names and name not in self.proofs, name
                self.proofs[name] = proof
            return proof

        return enter

    def check(self, name: str, lab: Any) -> None:
        """Runs a field's proof."""
        if name not in self.proofs:
            pytest.fail(
                f"`{self.cls.__name__}.{name}` has no proof of its effect: "
                "enter one with `@EFFECTS.proves` (see tests/effects.py)"
            )
        self.proofs[name](lab)

    def check_ignored(self, name: str, lab: Any) -> None:
        """Runs a field's proof, which must fail, while it is ignored."""
        value = self.base.get(name, settings.of(self.cls)[name].default)
        # `Failed` of `pytest.raises` that saw nothing is no `Exception`.
        with ignored(self.cls, name, value):
            with pytest.raises((Exception, pytest.fail.Exception)):
                self.proofs[name](lab)
