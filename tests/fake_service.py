"""The service over a model that is none: `python fake_service.py [FLAGS]`.

It answers at once, without TensorFlow, unless a text says otherwise:
`慢0.5` takes half a second.
"""

import sys
import time

import numpy as np

from albert_tf2.errors import UserError


class FakePredictor:
    """Embeds a text as its length and its first character.

    Attributes:
        passes: How many texts each call got.
    """

    task = None
    fills_masks = True

    def __init__(self, source="", **settings):
        del source, settings
        self.passes = []

    def example(self):
        return []

    def embed(self, texts, *, pooling="mean"):
        del pooling
        self.passes.append(len(texts))
        for text in texts:
            if text.startswith("慢"):
                time.sleep(float(text[1:]))
            if text == "坏":
                raise UserError("a bad text")
            if text == "错":
                raise RuntimeError("a fault of ours")
        return np.array([[len(t), ord(t[0])] for t in texts], np.float32)

    def tag(self, texts):
        self.passes.append(len(texts))
        return [{"id": i, "text": text} for i, text in enumerate(texts)]

    def similarity(self, texts_a, texts_b):
        pairs = zip(texts_a, texts_b, strict=True)
        return np.array([float(a == b) for a, b in pairs])

    def fill_masks(self, texts, *, top_k=5):
        proposal = {"text": "京", "probability": 0.5}
        return [[[proposal] * top_k] * text.count("[MASK]") for text in texts]


def embedded(text):
    """What the service answers for a text."""
    return [float(len(text)), float(ord(text[0]))]


if __name__ == "__main__":
    import functools

    from albert_tf2 import command_line, serve
    from albert_tf2.prediction import service

    serve.Predictor = FakePredictor
    # A test need not wait for as long as clients may.
    service.Limits = functools.partial(service.Limits, drain_seconds=1)
    command_line.run(lambda _: serve.main(["--model", "none", *sys.argv[1:]]))
