"""What a fine-tuned model must answer once it is exported, and to what.

The answers are the predictor's, asked in the process that writes the export,
laid out as the export's outputs are (see the `*_graph` modules). A process
that knows nothing of this one compares (see `verify`).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from albert_tf2.prediction.tuned_model import TunedModel
from albert_tf2.tasks import base
from albert_tf2.tasks.multiple_choice import ChID

GIVEN = "given:"  # before the names of inputs among what is expected
PROBES = [
    "今天天气很好，我们去公园吧。",
    "ＡＬＢＥＲＴ是一个Chinese模型！价格：３.５元",
    "“引号”——破折号……[MASK]",
    "",
]
LONG = PROBES[0] * 60
CHOICES = [["去公园", "不去"], ["很好", "很坏", "🙂", "…"]]

Probes = tuple[dict[str, Any], dict[str, Any]]


def expected_answers(tuned: TunedModel) -> dict[str, np.ndarray]:
    """Asks a `TunedModel`; returns inputs and outputs by name, see `GIVEN`."""
    texts = [*PROBES, LONG]
    asked = {
        base.TAGGING: _tagging,
        base.SPAN: _span,
        base.CHOICE: _choice,
    }.get(tuned.task.kind, _texts)
    given, answers = asked(tuned, texts)
    return {
        **{f"{GIVEN}{name}": np.array(value) for name, value in given.items()},
        **{name: np.array(value) for name, value in answers.items()},
    }


def _texts(tuned: TunedModel, texts: list[str]) -> Probes:
    others = texts[::-1]
    pairs = getattr(tuned.task, "pairs", None)
    rows = list(zip(texts, others, strict=True)) if pairs else texts
    given = {"text_a": texts, "text_b": others} if pairs else {"text": texts}
    if tuned.task.kind == base.VECTORS:
        return given, {"embedding": tuned.embed(texts)}
    if tuned.task.kind == base.REGRESSION:
        return given, {"score": [a["score"] for a in tuned.score(rows)]}
    found = [a["probabilities"] for a in tuned.classify(rows)]
    return given, {
        "labels": [list(a) for a in found],
        "probabilities": [list(a.values()) for a in found],
    }


def _tagging(tuned: TunedModel, texts: list[str]) -> Probes:
    found = [answer["entities"] for answer in tuned.tag(texts)]

    def column(key: str, absent: Any) -> list[list[Any]]:
        return padded([[e[key] for e in row] for row in found], absent)

    return {"text": texts}, {
        "counts": [len(row) for row in found],
        "types": column("type", ""),
        "texts": column("text", ""),
        "starts": column("start", -1),
        "ends": column("end", -1),
        "probabilities": column("probability", 0.0),
    }


def _span(tuned: TunedModel, texts: list[str]) -> Probes:
    questions = ["天气如何？", *texts[:0:-1]]
    found = tuned.answer(list(zip(questions, texts, strict=True)))
    n_best = [[a["probability"] for a in row["n_best"]] for row in found]
    most = tuned.lengths.n_best
    return {"question": questions, "text": texts}, {
        # Offsets are not compared: two windows of a text that repeats itself
        # may give one answer twice, and rounding says which comes first.
        "answer": [row["answer"] for row in found],
        "count": [len(row) for row in n_best],
        "n_best_probabilities": padded(n_best, 0.0, most),
    }


def _choice(tuned: TunedModel, texts: list[str]) -> Probes:
    questions = [f"{text[:9]}？" for text in texts[::-1]]
    choices = [CHOICES[i % 2] for i in range(len(texts))]
    if isinstance(tuned.task, ChID):
        questions = [f"#idiom{i:06}#" for i in range(len(texts))]
        texts = [
            f"{text}{tag}{text}#idiom#"
            for text, tag in zip(texts, questions, strict=True)
        ]
    found = tuned.choose(list(zip(texts, questions, choices, strict=True)))
    given = {"text": texts, "question": questions}
    return {**given, "choices": padded(choices, "")}, {
        "choice": [answer["choice"] for answer in found],
        "probabilities": padded([a["probabilities"] for a in found], 0.0),
    }


def padded(
    rows: Sequence[Sequence[Any]], absent: Any, width: int = 0
) -> list[list[Any]]:
    """Makes rows equally long: as the longest, or wider."""
    width = max(width, *map(len, rows))
    return [[*row, *[absent] * (width - len(row))] for row in rows]
