"""What quantization lost: the figures, and what is refused."""

import json

import numpy as np
import pytest

from albert_tf2 import AlbertPretrainer, Tokenizer, UserError, Vocabulary
from albert_tf2.hub_export import quantization, tflite_variants
from albert_tf2.text.tokenization import SPECIAL_TOKENS

pytestmark = pytest.mark.usefixtures("warm_python")

RNG = np.random.default_rng(0)


def vectors(count=60, size=8):
    return RNG.normal(size=[count, size])


def test_the_figures_are_those_of_a_loop():
    expected = vectors()
    found = 3 * expected + 0.8 * vectors()
    cosines, same = [], 0
    for i in range(len(expected)):
        cosines.append(_cosine(expected[i], found[i]))
        same += _nearest(expected, i) == _nearest(found, i)
    lost = quantization.loss(expected, found)
    assert lost.sentences == 60
    assert lost.mean_cosine == pytest.approx(np.mean(cosines))
    assert lost.least_cosine == pytest.approx(min(cosines))
    assert lost.neighbours == pytest.approx(same / 60)
    assert 0 < same < 60


def _cosine(a, b):
    return a @ b / np.sqrt((a @ a) * (b @ b))


def _nearest(all_of, i):
    others = [j for j in range(len(all_of)) if j != i]
    return max(others, key=lambda j: _cosine(all_of[i], all_of[j]))


def test_lengths_do_not_count_and_few_have_no_neighbours():
    lost = quantization.loss(few := vectors(49), few * 7)
    assert lost.neighbours is None
    assert lost.mean_cosine == pytest.approx(1)
    assert not lost.is_too_much


@pytest.mark.parametrize(
    "mean, neighbours, refused",
    [
        (0.991, 0.91, False),
        (0.989, 0.99, True),
        (0.999, 0.89, True),
        (0.991, None, False),
    ],
)
def test_too_much_is_refused_unless_it_is_taken(mean, neighbours, refused):
    lost = quantization.Loss(100, mean, 0.5, neighbours)
    quantization.must_be_little("a.tflite", lost, accept=True)
    assert lost.is_too_much == refused
    if refused:
        with pytest.raises(UserError, match="a.tflite .*--accept_loss"):
            quantization.must_be_little("a.tflite", lost, accept=False)
    else:
        quantization.must_be_little("a.tflite", lost, accept=False)


def test_compared_are_the_last_sentences_each_once():
    texts = [f"第{i % 300}句" for i in range(900)] + [" ", "末"]
    chosen = quantization.measured_on(texts)
    assert chosen == [f"第{i}句" for i in range(101, 300)] + ["末"]


def test_an_export_that_lost_too_much_leaves_nothing(
    tiny_config, tmp_path, monkeypatch
):
    """Real models are compared in test_export; here, any will do."""
    lost = quantization.Loss(100, 0.95, 0.3, 0.5)
    for name, stub in {
        "export_tflite": lambda model, path, *_, **__: path.write_bytes(b""),
        "_agreement": lambda *_: 0.95,
        "_loss": lambda *_: lost,
    }.items():
        monkeypatch.setattr(tflite_variants, name, stub)

    def export(**options):
        return list(
            tflite_variants.export_variants(
                AlbertPretrainer(tiny_config),
                Tokenizer(Vocabulary([*SPECIAL_TOKENS, *"一丁七"])),
                tmp_path / "out",
                seq_length=16,
                sentences=["一丁七", "万丈三上下"],
                **options,
            )
        )

    with pytest.raises(UserError, match="embedding_fp16_16.tflite lost too"):
        export()
    assert not (tmp_path / "out").exists()
    lines = export(accept_loss=True)
    assert lines.count(f"  {lost}") == 3  # once for each precision but fp32
    written = json.loads((tmp_path / "out/quantization.json").read_text())
    assert written == dict.fromkeys(
        ["fp16", "dynamic_int8", "int8"], lost.to_dict()
    )
