"""Chinese ALBERT for TensorFlow 2.

    >>> import albert_tf2
    >>> config = albert_tf2.AlbertConfig.from_name("albert_tiny_zh")
    >>> encoder = albert_tf2.AlbertEncoder(config)
    >>> tokenizer = albert_tf2.Tokenizer("vocab.txt")
    >>> model = albert_tf2.load_pretrained("albert_tiny_zh/")

The names load on first use, so that command lines can check their arguments
before TensorFlow starts.
"""

import importlib
from typing import Any

__version__ = "0.2.0"

_HOMES = {
    "AlbertConfig": "config",
    "AlbertEncoder": "model.albert",
    "AlbertPretrainer": "model.albert",
    "Predictor": "prediction.predictor",
    "Tokenizer": "text.tokenization",
    "UserError": "errors",
    "Vocabulary": "text.tokenization",
    "load_pretrained": "checkpoints",
    "save_pretrained": "checkpoints",
}

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'albert_tf2' has no attribute {name!r}")
    module = importlib.import_module(f"albert_tf2.{_HOMES[name]}")
    return getattr(module, name)


def __dir__() -> list[str]:
    return __all__
