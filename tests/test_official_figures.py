"""Figures under official names, against the programs that own the names."""

import random
import warnings

import numpy as np
import pytest

from albert_tf2.tasks import bio
from albert_tf2.tasks.bio import Entity
from albert_tf2.tasks.classification import classification_metrics
from albert_tf2.tasks.multi_label import multi_label_metrics
from albert_tf2.tasks.regression import regression_metrics
from albert_tf2.tasks.tagging import CLUENER_TYPES

COUNTS = [300, pytest.param(10_000, marks=pytest.mark.large)]


@pytest.fixture(autouse=True)
def quiet():
    """The programs warn of every class that does not occur."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("count", COUNTS)
def test_classification_against_scikit_learn(count):
    metrics = pytest.importorskip("sklearn.metrics")
    rng = random.Random(0)
    for _ in range(count):
        classes = rng.choices("abcdefg", k=rng.randint(1, 7))
        rows = rng.choice([1, 2, 3, 30])
        gold = rng.choices(classes, k=rows)
        guess = rng.choices([*classes, "only guessed"], k=rows)
        figures = classification_metrics(list(zip(gold, guess, strict=True)))
        assert figures["accuracy"] == pytest.approx(
            metrics.accuracy_score(gold, guess)
        )
        assert figures["macro_f1"] == pytest.approx(
            metrics.f1_score(gold, guess, average="macro", zero_division=0)
        ), (gold, guess)


@pytest.mark.parametrize("count", COUNTS)
def test_several_labels_against_scikit_learn(count):
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    for _ in range(count):
        names = [*"abcde"[: rng.integers(1, 6)]]
        shape = [rng.integers(1, 9), len(names)]
        gold, guess = (rng.random([2, *shape]) < rng.random()).astype(int)
        pairs = [
            tuple(
                {n for n, on in zip(names, row, strict=True) if on} for row in p
            )
            for p in zip(gold, guess, strict=True)
        ]
        figures = multi_label_metrics(pairs, names)
        for average in ("micro", "macro"):
            expected = metrics.f1_score(
                gold, guess, average=average, zero_division=0
            )
            if len(names) == 1:  # scikit-learn takes it for two classes
                expected = metrics.f1_score(gold, guess, zero_division=0)
            assert figures[f"{average}_f1"] == pytest.approx(expected)
        assert figures["exact_match"] == pytest.approx(
            metrics.accuracy_score(gold, guess)
        )


@pytest.mark.parametrize("count", COUNTS)
def test_scores_against_scipy(count):
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    for _ in range(count):
        gold, guess = rng.integers(0, rng.integers(2, 9), [2, 12]) * rng.choice(
            [1e-9, 0.5, 1, 1e9]
        )
        figures = regression_metrics(list(zip(gold, guess, strict=True)))
        for name, function in (
            ("pearson", stats.pearsonr),
            ("spearman", stats.spearmanr),
        ):
            expected = np.nan_to_num(function(gold, guess).statistic)
            assert figures[name] == pytest.approx(expected, abs=1e-9)
        assert figures["mse"] == pytest.approx(np.mean((gold - guess) ** 2))
    assert regression_metrics([(1, 2)])["pearson"] == 0.0
    assert regression_metrics([]) == {}


@pytest.mark.parametrize("count", COUNTS)
def test_entities_against_seqeval(count):
    metrics = pytest.importorskip("seqeval.metrics")
    rng = random.Random(0)
    for _ in range(count):
        tags = ["O", *(f"{p}-{kind}" for kind in "XYZ" for p in "BI")]
        tags = tags[: rng.choice([3, 5, 7])]
        lengths = rng.choices(range(1, 9), k=rng.randint(1, 4))
        gold, guess = (
            [rng.choices(tags, k=n) for n in lengths] for _ in range(2)
        )
        pairs = [
            tuple(
                set(bio.spans_of(row, [(i, i + 1) for i in range(len(row))]))
                for row in pair
            )
            for pair in zip(gold, guess, strict=True)
        ]
        figures = bio.entity_metrics(pairs)
        for name in ("f1", "precision", "recall"):
            official = getattr(metrics, f"{name}_score")
            assert figures[name] == pytest.approx(
                official(gold, guess, zero_division=0)
            ), (gold, guess)
        macro = (
            metrics.f1_score(gold, guess, average="macro", zero_division=0)
            if any(map(any, pairs))
            else 0.0
        )
        assert figures["macro_f1"] == pytest.approx(macro), (gold, guess)


def cluener_score(predictions, answers):
    """What CLUENER2020's score.py does; 0 where that divides by it."""
    scores = []
    for kind in CLUENER_TYPES:
        right = wrong = missed = 0
        for predicted, gold in zip(predictions, answers, strict=True):
            found, wanted = predicted.get(kind, {}), gold.get(kind, {})
            for surface in found:
                right += surface in wanted
                wrong += surface not in wanted
            missed += sum(surface not in found for surface in wanted)
        precision = right / (right + wrong) if right else 0.0
        recall = right / (right + missed) if right else 0.0
        total = precision + recall
        scores.append(2 * precision * recall / total if total else 0.0)
    return sum(scores) / len(scores)


@pytest.mark.parametrize("count", COUNTS)
def test_cluener_macro_against_its_program(count):
    from albert_tf2.tasks import registry
    from albert_tf2.tasks.ner_files import TaggedRow

    task = registry.create("cluener")
    rng = random.Random(0)

    def entities(text):
        starts = [rng.randrange(len(text)) for _ in range(rng.randint(0, 4))]
        return {
            Entity(s, min(s + rng.randint(1, 2), len(text)),
                   rng.choice(CLUENER_TYPES[:4]))
            for s in starts
        }  # fmt: skip

    def as_cluener(text, found):
        label = {}
        for e in found:
            spans = label.setdefault(e.type, {}).setdefault(
                text[e.start : e.end], []
            )
            spans.append([e.start, e.end - 1])
        return label

    for _ in range(count):
        texts = [
            "".join(rng.choices("甲乙丙", k=rng.randint(1, 8)))
            for _ in range(rng.randint(1, 5))
        ]
        gold = [entities(text) for text in texts]
        guess = [
            found if rng.random() < 0.5 else entities(text)
            for text, found in zip(texts, gold, strict=True)
        ]
        rows = [
            TaggedRow(i, text, tuple(sorted(found)))
            for i, (text, found) in enumerate(zip(texts, gold, strict=True))
        ]
        predictions = [
            {"entities": [e._asdict() for e in found]} for found in guess
        ]
        figures = task.score(rows, predictions)
        expected = cluener_score(
            [as_cluener(*p) for p in zip(texts, guess, strict=True)],
            [as_cluener(*p) for p in zip(texts, gold, strict=True)],
        )
        assert figures["cluener_macro_f1"] == pytest.approx(expected)
    other = registry.create("ner", labels=CLUENER_TYPES)
    assert "cluener_macro_f1" not in other.score(rows, predictions)
