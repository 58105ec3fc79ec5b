"""What belongs to a vocabulary travels with it, from the records on."""

import json
import subprocess
import sys

import numpy as np
import pytest
import task_samples as samples

from albert_tf2 import Tokenizer, UserError, Vocabulary, pretrain
from albert_tf2.text.text_settings import TextSettings
from albert_tf2.text.tokenization import SPECIAL_TOKENS

pytestmark = pytest.mark.usefixtures("warm_python")

VOCABULARY = Vocabulary([*SPECIAL_TOKENS, *'他说好"', "a", "A"])
CASED = TextSettings(do_lower_case=False, normalize=True)


def write(folder, **values):
    (folder / "vocab.txt").write_bytes(VOCABULARY.to_bytes())
    (folder / "text_settings.json").write_text(json.dumps(values))
    return folder


def test_a_folder_gives_back_what_was_saved(tmp_path):
    Tokenizer(VOCABULARY, CASED).save(tmp_path)
    assert json.loads((tmp_path / "text_settings.json").read_text()) == {
        "do_lower_case": False,
        "normalize": True,
        "special_tokens": list(SPECIAL_TOKENS),
        "vocab_sha256": VOCABULARY.sha256,
    }
    for source in (tmp_path, tmp_path / "vocab.txt"):
        found = Tokenizer(source)
        assert found.vocabulary.tokens == VOCABULARY.tokens
        assert found.settings.normalize and not found.settings.do_lower_case
        assert found.tokenize("“A好”").tokens == ['"', "A", "好", '"']


def test_nothing_written_means_the_originals(tmp_path):
    (tmp_path / "vocab.txt").write_bytes(VOCABULARY.to_bytes())
    assert TextSettings.beside(tmp_path / "vocab.txt") is None
    tokens = Tokenizer(tmp_path).tokenize("“A").tokens
    assert tokens == ["[UNK]", "a"]


def test_another_vocabulary_beside_the_settings_is_refused(tmp_path):
    folder = write(tmp_path, vocab_sha256="0" * 64)
    with pytest.raises(UserError, match="vocab.txt is not the vocabulary"):
        Tokenizer(folder)


@pytest.mark.parametrize(
    "values, reason",
    [
        ({"lower": True}, "unknown key `lower`; .*do_lower_case"),
        ({"normalize": 1}, "`normalize` must be of type bool. Received: 1"),
        ({"vocab_sha256": None}, "`vocab_sha256` must be of type str"),
        ({"special_tokens": ["<s>"]}, "`special_tokens` must be"),
    ],
)
def test_damaged_settings_are_refused(tmp_path, values, reason):
    with pytest.raises(UserError, match=reason) as error:
        Tokenizer(write(tmp_path, **values))
    assert "text_settings.json" in str(error.value)


# --- from records of `--normalize true` to every place that reads a text

TEXT = "他 说 “ 好 ”"
PLAIN_SIGNS = '他 说 " 好 "'


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """Records with folded signs, a run on them, and a tuned model."""
    from albert_tf2 import finetune
    from albert_tf2.data import build_pretraining_data

    root = tmp_path_factory.mktemp("chain")
    corpus = root / "corpus.txt"
    lines = ["他说“好”，她说“不好”。", "今天…天气很好", ""]
    corpus.write_text("\n".join(lines * 40), "utf-8")
    tokens = sorted({c for line in lines for c in line if c not in "“”…"})
    vocab_file = root / "vocab.txt"
    vocab_file.write_bytes(
        Vocabulary([*SPECIAL_TOKENS, *tokens, '"', "."]).to_bytes()
    )
    build_pretraining_data.main(
        ["--input_file", str(corpus), "--vocab_file", str(vocab_file)]
        + ["--output_dir", str(root / "records"), "--normalize", "true"]
        + ["--max_seq_length", "32", "--segmenter", "none"]
        + ["--num_shards", "1"]
    )
    samples.small_config(vocab_file).to_json(root / "albert.json")
    recipe = ["model=" + str(root / "albert.json"), "max_seq_length=32"]
    recipe += ["train_steps=1", "global_batch_size=4", "warmup_steps=0"]
    pretrain.main(
        ["--data_dir", str(root / "records"), "--workdir", str(root / "run")]
        + [word for pair in recipe for word in ("--set", pair)]
    )
    data = root / "data"
    data.mkdir()
    for split in ("train", "dev"):
        (data / f"{split}.tsv").write_text(
            "text_a\tlabel\n" + f"{TEXT}\t0\n{PLAIN_SIGNS}！\t1\n" * 4, "utf-8"
        )
    finetune.main(
        ["--task", "csv", "--data_dir", str(data)]
        + ["--init_checkpoint", str(root / "run")]
        + ["--workdir", str(root / "tuned"), "--set", "max_train_steps=1"]
        + ["--set", "max_seq_length=32"]
    )
    vocab_file.unlink()
    return root


def ids_of(tokenizer):
    folded = tokenizer.tokenize(TEXT)
    assert folded.ids == tokenizer.tokenize(PLAIN_SIGNS).ids
    assert "[UNK]" not in folded.tokens
    return folded.ids


def test_folding_reaches_tuned_models_and_the_service(chain):
    from albert_tf2.prediction.predictor import Predictor

    expected = ids_of(Tokenizer(chain / "records"))
    assert ids_of(Tokenizer(chain / "run")) == expected
    assert ids_of(Tokenizer(chain / "tuned" / "model")) == expected
    for folder in ("run", "tuned"):
        predictor = Predictor(chain / folder)
        assert ids_of(predictor.tokenizer) == expected
        np.testing.assert_allclose(
            *predictor.embed([TEXT, PLAIN_SIGNS]), atol=1e-6
        )
    # The service asks the predictor.
    first, second = predictor.classify([TEXT, PLAIN_SIGNS])
    assert first["probabilities"] == pytest.approx(second["probabilities"])


def test_a_run_from_other_texts_is_told(chain, tmp_path, capsys):
    from albert_tf2 import load_pretrained, save_pretrained

    model = load_pretrained(chain / "run")
    model.text_settings = None  # as of a model that others released
    (tmp_path / "vocab.txt").write_bytes(
        (chain / "run" / "vocab.txt").read_bytes()
    )
    save_pretrained(model, tmp_path / "old", vocab_file=tmp_path / "vocab.txt")
    recipe = json.loads((chain / "run" / "recipe.json").read_text())
    sets = ["model", "max_seq_length", "train_steps", "global_batch_size"]
    pretrain.main(
        ["--data_dir", str(chain / "records"), "--workdir", str(tmp_path / "w")]
        + ["--init_checkpoint", str(tmp_path / "old"), "--set"]
        + ["warmup_steps=0"]
        + [x for key in sets for x in ("--set", f"{key}={recipe[key]}")]
    )
    assert "on texts with `normalize` False, and the records have True" in (
        capsys.readouterr().out
    )


def test_folding_reaches_conversions(chain, tmp_path):
    from albert_tf2 import convert, load_pretrained, save_pretrained

    expected = ids_of(Tokenizer(chain / "run"))
    for target in ("tf1", "tf2"):
        convert.main(
            ["--input", str(chain / "run"), "--to", target]
            + ["--output", str(tmp_path / target)]
        )
        assert ids_of(Tokenizer(tmp_path / target)) == expected
    model = load_pretrained(tmp_path / "tf1")
    assert model.text_settings.normalize
    save_pretrained(model, tmp_path / "saved")
    assert ids_of(Tokenizer(tmp_path / "saved")) == expected


def test_folding_reaches_exports_without_a_flag(chain, tmp_path):
    """In a fresh process, which knows nothing of this one."""
    from albert_tf2.hub_export import export
    from albert_tf2.prediction.predictor import Predictor

    exported = tmp_path / "exported"
    common = ["--checkpoint", str(chain / "run")]
    common += ["--export_dir", str(exported), "--seq_length", "32"]
    export.main([*common, "--what", "preprocessor,encoder"])
    program = (
        "import sys, json, tensorflow as tf, tensorflow_text\n"
        "loaded = tf.saved_model.load(sys.argv[1])\n"
        "ids = loaded(tf.constant([sys.argv[2]]))['input_word_ids']\n"
        "print(json.dumps(ids.numpy()[0].tolist()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, exported / "preprocessor" / "1", TEXT],
        capture_output=True,
        text=True,
        check=True,
    )
    expected = ids_of(Tokenizer(chain / "run"))
    ids = json.loads(done.stdout.splitlines()[-1])
    assert ids[: len(expected) + 2] == [2, *expected, 3]
    # Through the hub the settings come back.
    by_hub = Predictor(exported / "encoder" / "1")
    assert ids_of(by_hub.tokenizer) == expected
    with pytest.raises(UserError, match="--cased contradicts the"):
        export.main([*common, "--version", "2", "--cased"])


def test_special_tokens_are_spelled_as_they_are_known():
    spelled = [*SPECIAL_TOKENS[:-1], "<mask>"]
    with pytest.raises(UserError, match="the only ones that are known"):
        TextSettings.from_dict({"special_tokens": spelled}, source="a.json")
