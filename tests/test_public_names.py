"""The names that others build on."""

import albert_tf2


def test_every_public_name_is_there():
    for name in albert_tf2.__all__:
        assert getattr(albert_tf2, name) is not None, name


def test_names_that_were_promised():
    assert {
        "AlbertConfig",
        "AlbertEncoder",
        "AlbertPretrainer",
        "Predictor",
        "Tokenizer",
        "load_pretrained",
    } <= set(dir(albert_tf2))
