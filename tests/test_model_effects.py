"""Every field of a model's configuration has its effect on the model."""

import numpy as np
import pytest
import tensorflow as tf
from effects import Effects

from albert_tf2 import AlbertConfig, features
from albert_tf2.keras_api import keras
from albert_tf2.model.albert import AlbertEncoder

BASE = {
    "vocab_size": 30,
    "embedding_size": 4,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 12,
    "initializer_range": 0.5,
}
GOOGLE = {"layout": "google"}
EFFECTS = Effects(AlbertConfig, BASE)
INPUTS = {
    features.INPUT_WORD_IDS: tf.constant([[2, 7, 9, 8, 3, 0]]),
    features.INPUT_MASK: tf.constant([[1, 1, 1, 1, 1, 0]]),
    features.INPUT_TYPE_IDS: tf.constant([[0, 0, 0, 1, 1, 0]]),
}


class Lab:
    """Encoders whose weights follow from one seed."""

    def __init__(self):
        self.base = self.encoder()

    def encoder(self, **changes):
        keras.utils.set_random_seed(0)
        return AlbertEncoder(AlbertConfig(**BASE | changes))

    def shapes(self, **changes):
        return sorted(
            tuple(variable.shape)
            for variable in self.encoder(**changes).variables
        )

    def answers(self, training=False, **changes):
        """What an encoder with the base's weights answers."""
        encoder = self.encoder(**changes)
        encoder.set_weights(self.base.get_weights())
        keras.utils.set_random_seed(1)
        return encoder(INPUTS, training=training)

    def differs(self, training=False, **changes):
        found, before = (
            self.answers(training, **given)[features.SEQUENCE_OUTPUT].numpy()
            for given in (changes, {})
        )
        assert np.abs(found - before).max() > 1e-4


@pytest.fixture(scope="module")
def lab():
    return Lab()


@pytest.mark.parametrize("name", EFFECTS.names)
def test_each_field_has_its_effect(name, lab):
    EFFECTS.check(name, lab)


@pytest.mark.large
@pytest.mark.parametrize("name", EFFECTS.names)
def test_each_proof_fails_when_its_field_is_ignored(name, lab):
    EFFECTS.check_ignored(name, lab)


# The shape that a variable has then, and that none has otherwise.
SHAPES = {
    "vocab_size": (31, (31, 4)),
    "embedding_size": (5, (30, 5)),
    "hidden_size": (10, (4, 10)),
    "intermediate_size": (17, (8, 17)),
    "max_position_embeddings": (13, (13, 8)),
    "type_vocab_size": (3, (3, 8)),
}
# What the same weights answer otherwise.
ANSWERS = {
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "hidden_act": "relu",
    "ln_type": "preln",
}


def shape(name, value, expected):
    @EFFECTS.proves(name)
    def _(lab):
        assert expected not in lab.shapes()
        assert expected in lab.shapes(**{name: value})


def answer(name, value, training=False):
    @EFFECTS.proves(name)
    def _(lab):
        lab.differs(training, **{name: value})


for _name, _values in SHAPES.items():
    shape(_name, *_values)
for _name, _value in ANSWERS.items():
    answer(_name, _value)
for _name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
    answer(_name, 0.5, training=True)


@EFFECTS.proves("initializer_range")
def _(lab):
    (wide, narrow) = (
        np.abs(encoder.get_weights()[0]).mean()
        for encoder in (lab.base, lab.encoder(initializer_range=0.01))
    )
    assert wide / narrow == pytest.approx(50, rel=0.01)


@EFFECTS.proves("layout")
def _(lab):
    # Positions at the width of the words, or of the layers.
    assert (12, 8) in lab.shapes() and (12, 4) in lab.shapes(**GOOGLE)


@EFFECTS.proves("num_hidden_groups")
def _(lab):
    groups = lab.shapes(num_hidden_groups=2, **GOOGLE)
    assert groups.count((8, 16)) == 2 * lab.shapes(**GOOGLE).count((8, 16))


@EFFECTS.proves("inner_group_num")
def _(lab):
    inner = lab.shapes(inner_group_num=3, **GOOGLE)
    assert inner.count((8, 16)) == 3 * lab.shapes(**GOOGLE).count((8, 16))


@EFFECTS.proves("parameter_sharing")
def _(lab):
    # Attention's four kernels and the pooler's; the feed-forward part's one.
    counts = [
        (shapes.count((8, 8)), shapes.count((8, 16)))
        for shapes in (
            lab.shapes(parameter_sharing=sharing)
            for sharing in ("all", "attention", "ffn", "none")
        )
    ]
    assert counts == [(5, 1), (5, 2), (9, 1), (9, 2)]
