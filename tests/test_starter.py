"""The model that comes along: whole, small, and knows something."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from albert_tf2 import (
    AlbertConfig,
    AlbertPretrainer,
    UserError,
    load_pretrained,
    predict,
)
from albert_tf2.checkpoints import read_weights
from albert_tf2.checkpoints.download import STARTER, local_path
from albert_tf2.finetuning import matching_heads
from albert_tf2.hub_export.verify import probe_inputs
from albert_tf2.recipes import PretrainRecipe, load_recipe

MAX_BYTES = 9_000_000
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A folder without a `starter` in it, unlike the checkout."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def folder(elsewhere):
    return local_path(STARTER)


def test_it_is_whole_and_small(folder):
    names = {path.name for path in folder.iterdir()} - {"__pycache__"}
    assert names == {
        "README.md",
        "__init__.py",
        "config.json",
        "curves.png",
        "curves_3.png",
        "model.safetensors",
        "recipe.yaml",
        "recipe_2.yaml",
        "recipe_3.yaml",
        "text_settings.json",
        "tokenizer_config.json",
        "vocab.txt",
    }
    files = [path for path in folder.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) < MAX_BYTES


def test_its_weights_are_halves_and_its_sizes_those_of_tiny(folder):
    from safetensors.numpy import load_file

    tensors = load_file(folder / "model.safetensors")
    assert {array.dtype for array in tensors.values()} == {np.dtype("float16")}
    found = read_weights(STARTER)
    tiny = AlbertConfig.from_name("albert_tiny_zh_google")
    vocab_size = found.config.vocab_size
    assert found.config == tiny.replace(vocab_size=vocab_size)
    assert {array.dtype for array in found.arrays.values()} == {
        np.dtype("float32")
    }
    assert set(found.heads) == {"mlm", "sop"}
    lines = found.vocab_file.read_bytes().count(b"\n")
    assert lines == vocab_size


def test_a_folder_of_that_name_comes_first(tmp_path):
    (tmp_path / STARTER).mkdir()
    with pytest.raises(UserError, match="starter holds no checkpoint"):
        load_pretrained(STARTER)


def test_a_name_like_it_is_suggested():
    with pytest.raises(UserError, match="did you mean `starter`"):
        load_pretrained("startr")


@pytest.mark.parametrize(
    "text, word",
    [
        ("本办法自公布之日起[MASK][MASK]。", "施行"),
        ("违反本法规定，构成[MASK][MASK]的，依法追究刑事责任。", "犯罪"),
        ("第一条　为了加强管理，根据有关[MASK][MASK]，制定本办法。", "规定"),
    ],
)
def test_it_knows_what_its_texts_say(text, word, capsys):
    assert predict.main(["fill-mask", text, "--top_k", "1"]) == 0
    captured = capsys.readouterr()
    (answer,) = map(json.loads, captured.out.splitlines())
    found = [best["text"] for (best,) in answer["masks"]]
    assert "".join(found) == word
    assert captured.err.startswith("no --model is named: the starter answers")


def test_similarity_without_a_model(capsys):
    pairs = ["花呗怎么还款\t如何还花呗", "花呗怎么还款\t周末去哪里爬山"]
    assert predict.main(["similarity", *pairs]) == 0
    near, far = map(json.loads, capsys.readouterr().out.splitlines())
    assert near["similarity"] > far["similarity"]


@pytest.mark.parametrize("mode", predict.KINDS)
def test_what_needs_a_tuned_model_asks_for_one(mode):
    with pytest.raises(UserError, match=f"^{mode} needs a fine-tuned model"):
        predict.main([mode, "甲"])


def test_transformers_reads_it_as_it_is(folder):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    theirs = transformers.AlbertForPreTraining.from_pretrained(
        folder, dtype=torch.float32
    ).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    encoded = tokenizer(["今天天气很好"], return_tensors="pt")
    with torch.no_grad():
        expected = theirs(**encoded).prediction_logits.numpy()
    model = load_pretrained(STARTER)
    ids = encoded["input_ids"].numpy()
    length = ids.shape[1]
    outputs = model(
        {
            "input_word_ids": ids,
            "input_mask": np.ones_like(ids),
            "input_type_ids": np.zeros_like(ids),
            "masked_lm_positions": np.arange(length)[None],
        }
    )
    np.testing.assert_allclose(outputs["mlm_logits"], expected, atol=1e-4)


@pytest.mark.large
def test_a_starter_is_made_of_a_run(tmp_path):
    pytest.importorskip("transformers")
    from albert_tf2 import pretrain
    from albert_tf2.data import build_pretraining_data, vocabulary
    from albert_tf2.quickstart import sample

    small = AlbertConfig.from_name("albert_tiny_zh_google").replace(
        hidden_size=24,
        embedding_size=48,
        intermediate_size=48,
        num_attention_heads=3,
    )
    (tmp_path / "small.json").write_text(json.dumps(small.to_dict()))
    texts = ["--input_file", str(sample("corpus", "news*.txt"))]
    vocabulary.main([*texts, "--vocab_size", "2000", "--output", "vocab.txt"])
    build_pretraining_data.main(
        [*texts, "--vocab_file", "vocab.txt", "--output_dir", "records"]
        + ["--max_seq_length", "64", "--eval_fraction", "0.1"]
    )
    settings = ["model=small.json", "vocab_size_from_data=true"]
    settings += ["train_steps=4", "global_batch_size=8", "optimizer=adamw"]
    settings += ["learning_rate=0.01", "warmup_steps=1", "log_every=1"]
    pretrain.main(
        ["--data_dir", "records", "--workdir", "run"]
        + [f"--set={setting}" for setting in settings]
    )
    revived = ["--data_dir", "records", "--output", "revived"]
    assert program("revive_units").main(["--run", "run", *revived]) == 0
    pretrain.main(
        ["--data_dir", "records", "--workdir", "run_2"]
        + ["--init_checkpoint", "revived"]
        + [f"--set={setting}" for setting in settings]
    )
    arguments = ["--runs", "run", "run_2", "--data_dir", "records"]
    made = ["--output", "made"]
    assert program("make_starter").main([*arguments, *made]) == 0
    trained, made = read_weights("run_2"), read_weights("made")
    assert set(made.arrays) == set(trained.arrays)
    for name, array in trained.arrays.items():
        halves = array.astype(np.float16).astype(np.float32)
        np.testing.assert_array_equal(made.arrays[name], halves)
    card = (tmp_path / "made" / "README.md").read_text("utf-8")
    evaluated = json.loads(
        (tmp_path / "run_2" / "evaluation.jsonl").read_text().splitlines()[-1]
    )
    assert f"| as trained | {evaluated['mlm_loss']:.3f} |" in card
    assert "`recipe.yaml` and `recipe_2.yaml`\nbeside this file: 8 st" in card
    assert "about two hours" in card and "Before the last run" not in card
    assert load_recipe(PretrainRecipe, "made/recipe_2.yaml").train_steps == 4

    # From there on, when the folders of its runs are gone.
    looking = program("looking_heads").main(
        ["--checkpoint", "made", "--output", "looking", *texts]
    )
    assert looking == 0
    before, after = read_weights("made").arrays, read_weights("looking").arrays
    chosen = matching_heads.least(
        load_pretrained("made").encoder.attention_layers[0], 2
    )
    columns = [c for head in chosen for c in range(8 * head, 8 * head + 8)]
    for name, array in after.items():
        changed = np.where(np.any(np.atleast_2d(array != before[name]), axis=0))
        looks = name.endswith(("query/kernel", "key/kernel"))
        if looks:
            assert list(changed[0]) == columns, name
        else:
            assert not len(changed[0]) or name.endswith(
                ("query/bias", "key/bias")
            )
    pretrain.main(
        ["--data_dir", "records", "--workdir", "run_3"]
        + ["--init_checkpoint", "looking"]
        + [f"--set={setting}" for setting in settings]
    )
    arguments = ["--before", "made", "--runs", "run_3", "--data_dir", "records"]
    made = ["--output", "made_2"]
    assert program("make_starter").main([*arguments, *made]) == 0
    card = (tmp_path / "made_2" / "README.md").read_text("utf-8")
    assert "`recipe.yaml`, `recipe_2.yaml` and `recipe_3.yaml`\nbeside" in card
    assert "12 steps" in card
    assert "about three hours" in card and "Before the last run" in card
    assert "(curves.png)\n" in card and "(curves_3.png)\n" in card
    assert {p.name for p in (tmp_path / "made_2").glob("*.png")} == {
        "curves.png",
        "curves_3.png",
    }


def program(name):
    """Returns a program of the benchmarks."""
    path = ROOT / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_looking_heads_find_the_word_in_the_other_text():
    """As the starter's did when they began: scores of its first layer."""
    tool = program("looking_heads")
    model = load_pretrained(STARTER)
    width, words = 26, np.arange(700, 1900)
    inputs = matching_heads.first_inputs(model.encoder, words, [1, 9, 30])
    queries, keys = tool.looks(
        inputs.astype(np.float64), np.ones(len(words)), width
    )
    assert len(queries) == len(keys) == tool.HEADS
    for ask, answer in zip(queries, keys, strict=True):
        asked = inputs[0, 0] @ ask.kernel + ask.bias
        scores = {
            text: asked
            @ (inputs[text, 2] @ answer.kernel + answer.bias).T
            / width**0.5
            for text in (0, 1)
        }
        found = scores[1].argmax(axis=1) == np.arange(len(words))
        assert found.mean() > 0.9
        # Places differ a little in what they add to a text's sign.
        apart = scores[1].mean() - scores[0].mean()
        assert apart == pytest.approx(2 * tool.OTHER_TEXT, rel=0.3)
        equal = np.diag(scores[1]).mean() - scores[1].mean()
        assert equal == pytest.approx(tool.EQUAL, rel=0.3)


def test_revived_units_change_nothing_and_can_answer(tiny_config):
    """The tiny model's few units, of which two never answer."""
    model = AlbertPretrainer(tiny_config)
    block = model.encoder.feed_forward_layers[0]
    block.intermediate_dense.bias.assign_sub(
        [100.0] * 2 + [0.0] * (tiny_config.intermediate_size - 2)
    )
    inputs = {n: v for n, v in probe_inputs(202, 16).items()}
    expected = model.encoder(inputs)["sequence_output"].numpy()
    tool = program("revive_units")
    silent = tool.largest_inputs(model, [inputs]) <= tool.LEAST_INPUT
    assert silent[:2].all() and not silent.all()
    tool.revive(block, np.arange(len(silent)) < 2)
    found = model.encoder(inputs)["sequence_output"].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert (tool.largest_inputs(model, [inputs])[:2] > -1).all()
