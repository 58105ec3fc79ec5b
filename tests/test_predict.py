"""Prediction: fine-tuned models, masks, sentences, the command line."""

import dataclasses
import gc
import io
import json

import numpy as np
import pytest
import task_samples as samples

from albert_tf2 import predict
from albert_tf2.errors import UserError
from albert_tf2.predict import Predictor
from albert_tf2.prediction import input_files, sentence_vectors, similarity
from albert_tf2.prediction.masked_words import MaskedWords
from albert_tf2.tasks import encoding
from albert_tf2.text.tokenization import Tokenizer

SENTENCES = [text for pair in samples.PAIRS for text in pair[:2]]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    from albert_tf2.checkpoints import save_pretrained
    from albert_tf2.keras_api import keras
    from albert_tf2.model.albert import AlbertPretrainer

    folder = tmp_path_factory.mktemp("pretrained")
    vocab_file = samples.write_vocab(folder)
    keras.utils.set_random_seed(1)
    model = AlbertPretrainer(samples.small_config(vocab_file))
    return save_pretrained(model, folder / "model", vocab_file=vocab_file)


@pytest.fixture(scope="module")
def predictor(pretrained):
    return Predictor(pretrained, batch_size=3)


@pytest.fixture(scope="module")
def model(pretrained):
    """The same model, to be asked without a predictor."""
    from albert_tf2 import load_pretrained

    return load_pretrained(pretrained)


def fine_tuned(name, pretrained, folder, *, restore=None):
    """Writes an untrained model of a task: its outputs are all we need."""
    from albert_tf2.finetuning import encoders
    from albert_tf2.tasks import base, registry

    task = registry.create(name)
    if restore:
        task.restore(restore)
    else:
        task.pairs = name == "lcqmc"
    loaded = encoders.load_encoder(str(pretrained))
    encoders.save(
        folder,
        model=encoders.build(task, loaded, seed=0),
        task=task,
        loaded=loaded,
        lengths=base.Lengths(max_seq_length=32, max_query_length=8),
    )
    return Predictor(folder)


def test_classify_is_the_model_on_each_text_alone(pretrained, tmp_path):
    """Batching by length changes neither order nor figures."""
    import tensorflow as tf

    from albert_tf2.finetuning import encoders
    from albert_tf2.tasks import base

    predictor = fine_tuned("lcqmc", pretrained, tmp_path / "m")
    pairs = [pair[:2] for pair in samples.PAIRS]
    found = predictor.classify(pairs)
    task, model, loaded, lengths = encoders.load(tmp_path / "m")
    tokenizer = loaded.tokenizer
    for (text_a, text_b), prediction in zip(pairs, found, strict=True):
        a, b = (tokenizer.tokenize(t).ids for t in (text_a, text_b))
        ids = [2, *a, 3, *b, 3]
        logits = model(
            {
                "input_word_ids": tf.constant([ids]),
                "input_mask": tf.ones([1, len(ids)], tf.int32),
                "input_type_ids": tf.constant(
                    [[0] * (len(a) + 2) + [1] * (len(b) + 1)]
                ),
            }
        )
        expected = base.softmax(logits.numpy())[0]
        got = [prediction["probabilities"][label] for label in task.labels]
        np.testing.assert_allclose(got, expected, atol=2e-6)
        assert prediction["label"] == task.labels[int(expected.argmax())]


def test_a_pair_model_wants_pairs(pretrained, tmp_path):
    predictor = fine_tuned("lcqmc", pretrained, tmp_path / "m")
    with pytest.raises(UserError, match="fine-tuned on pairs of texts"):
        predictor.classify(["今天天气很好"])


def test_tag_answer_choose(pretrained, tmp_path):
    tagged = fine_tuned("cluener", pretrained, tmp_path / "a").tag(SENTENCES)
    assert [row["text"] for row in tagged] == SENTENCES
    for row in tagged:
        for entity in row["entities"]:
            start, end = entity["start"], entity["end"]
            assert row["text"][start:end] == entity["text"]
    answerer = fine_tuned("cmrc2018", pretrained, tmp_path / "b")
    (answer,) = answerer.answer([("天气如何", "今天天气很好。" * 9)])
    assert answer["answer"] and answer["answer"] in "今天天气很好。" * 9
    chooser = fine_tuned("c3", pretrained, tmp_path / "c")
    (choice,) = chooser.choose([("今天天气很好", "天气？", ["好", "坏"])])
    assert choice["choice"] in ("好", "坏")
    with pytest.raises(UserError, match="fine-tuned for classification"):
        chooser.classify(["今天"])
    assert chooser.classify.__self__ is chooser
    assert answerer.answer([]) == []


def test_fill_mask_adds_both_forms_of_a_character(predictor, model):
    text = "中国首都是北[MASK]，天[MASK]很好"
    proposals = predictor.fill_mask(text, top_k=500)
    assert len(proposals) == 2
    by_name = {p["text"]: p["probability"] for p in proposals[0]}
    assert "##京" not in by_name and "##bert" in by_name
    assert sum(by_name.values()) == pytest.approx(1, abs=1e-3)

    vocabulary = predictor.tokenizer.vocabulary
    before, middle, after = text.split("[MASK]")
    ids = [vocabulary.cls_id]
    for part in (before, middle, after):
        ids += predictor.tokenizer.tokenize(part).ids + [vocabulary.mask_id]
    ids[-1] = vocabulary.sep_id
    position = ids.index(vocabulary.mask_id)
    logits = model(
        {
            "input_word_ids": np.array([ids], np.int32),
            "input_mask": np.ones([1, len(ids)], np.int32),
            "input_type_ids": np.zeros([1, len(ids)], np.int32),
            "masked_lm_positions": np.array([[position]], np.int32),
        }
    )["mlm_logits"].numpy()[0, 0]
    share = np.exp(logits) / np.exp(logits).sum()
    both = share[vocabulary.ids["京"]] + share[vocabulary.ids["##京"]]
    assert by_name["京"] == pytest.approx(both, abs=1e-5)


@pytest.mark.filterwarnings("ignore:.*no mlm and no sop head")
def test_fill_mask_says_what_is_missing(predictor, pretrained, tmp_path):
    with pytest.raises(UserError, match=r"holds no \[MASK\]"):
        predictor.fill_mask("今天")
    with pytest.raises(UserError, match="stands after that"):
        predictor.fill_mask("今天" * 100 + "[MASK]")
    with pytest.raises(UserError, match="masked-word head"):
        fine_tuned("lcqmc", pretrained, tmp_path / "m").fill_mask("[MASK]")
    # An encoder whose head was left out: no answers of an untrained one.
    from albert_tf2.checkpoints import native, read_weights

    found = read_weights(pretrained)
    arrays = {k: v for k, v in found.arrays.items() if k.startswith("bert/")}
    native.write(
        dataclasses.replace(found, arrays=arrays), tmp_path / "headless"
    )
    with pytest.warns(UserWarning, match="no mlm and no sop head"):
        headless = Predictor(tmp_path / "headless")
    with pytest.raises(UserError, match="masked-word head"):
        headless.fill_mask("[MASK]")


def test_a_string_alone_is_one_text(predictor, pretrained, tmp_path):
    np.testing.assert_array_equal(
        predictor.embed("今天天气"), predictor.embed(["今天天气"])
    )
    assert predictor.similarity("今天", "今天").shape == (1,)
    assert len(predictor.most_similar("今天", "今天天气")) == 1
    tagger = fine_tuned("cluener", pretrained, tmp_path / "tag")
    assert len(tagger.tag("今天天气")) == 1
    classifier = fine_tuned("tnews", pretrained, tmp_path / "classify")
    assert classifier.classify("今天天气") == classifier.classify(["今天天气"])
    for call, bad, reason in (
        (predictor.embed, [7], "a text must be a string. Received: 7"),
        (classifier.classify, [None], "a text must be|fine-tuned on single"),
        (
            fine_tuned("cmrc2018", pretrained, tmp_path / "answer").answer,
            ["今天天气"],
            r"expected \(question, text\)",
        ),
        (
            fine_tuned("c3", pretrained, tmp_path / "choose").choose,
            [("今天", "天气？", "好坏")],
            "takes 2 to 4 choices",
        ),
    ):
        with pytest.raises(UserError, match=reason):
            call(bad)


@pytest.mark.parametrize("settings", [{"max_seq_length": 2}, {"batch_size": 0}])
def test_sizes_that_cannot_work_are_refused(pretrained, settings):
    with pytest.raises(UserError, match="must be a whole number from"):
        Predictor(pretrained, **settings)


def test_several_labels_and_scores(pretrained, tmp_path):
    labels = {"labels": ["卫生", "价格"], "task": "multi_label", "pairs": False}
    several = fine_tuned(
        "multi_label", pretrained, tmp_path / "a", restore=labels
    )
    (found,) = several.classify(["今天天气"])
    assert set(found["probabilities"]) == {"卫生", "价格"}
    scale = {"labels": [], "mean": 3.0, "spread": 1.5, "steps": [1, 5]}
    scores = fine_tuned("regression", pretrained, tmp_path / "b", restore=scale)
    (found,) = scores.score([("今天天气", "今天")])
    assert found["nearest"] in (1, 5)
    with pytest.raises(UserError, match="fine-tuned for classification"):
        scores.classify(["今天天气"])


@pytest.mark.parametrize("pooling", ["mean", "cls", "pooled"])
def test_embeddings_against_each_text_alone(predictor, model, pooling):
    vectors = predictor.embed(SENTENCES, pooling=pooling)
    for text, vector in zip(SENTENCES, vectors, strict=True):
        ids = [2, *predictor.tokenizer.tokenize(text).ids, 3]
        outputs = model.encoder(
            {
                "input_word_ids": np.array([ids], np.int32),
                "input_mask": np.ones([1, len(ids)], np.int32),
                "input_type_ids": np.zeros([1, len(ids)], np.int32),
            }
        )
        sequence = outputs["sequence_output"].numpy()[0]
        expected = {
            "mean": sequence.mean(0),
            "cls": sequence[0],
            "pooled": outputs["pooled_output"].numpy()[0],
        }[pooling]
        np.testing.assert_allclose(vector, expected, atol=1e-5)


def test_similarity(predictor):
    assert predictor.similarity(["今天天气"], ["今天天气"])[0] == pytest.approx(
        1
    )
    ranked = predictor.most_similar(SENTENCES[3], SENTENCES, top_k=2)
    # Some sentences stand there twice, and rounding says which comes first.
    number, cosine = ranked[0]
    assert SENTENCES[number] == SENTENCES[3] and cosine == pytest.approx(1)
    vectors = predictor.embed(SENTENCES)
    again = predictor.most_similar(SENTENCES[3], vectors, top_k=2)
    assert [c for _, c in again] == pytest.approx([c for _, c in ranked])
    assert predictor.most_similar("今天", []) == []
    with pytest.raises(UserError, match="two lists of one length"):
        predictor.similarity(["今天"], [])


def test_a_hub_encoder_embeds_and_fine_tunes(tmp_path, model, predictor):
    """Through hub.KerasLayer the vectors are those of the model itself."""
    from albert_tf2 import finetune
    from albert_tf2.hub_export.encoder import export_encoder

    encoder = export_encoder(model, predictor.tokenizer, tmp_path / "encoder")
    by_hub = Predictor(str(encoder))
    np.testing.assert_allclose(
        by_hub.embed(SENTENCES), predictor.embed(SENTENCES), atol=1e-5
    )
    assert by_hub.fill_mask("北[MASK]") == predictor.fill_mask("北[MASK]")

    code = finetune.main(
        [
            "--task",
            "lcqmc",
            "--init_checkpoint",
            str(encoder),
            "--data_dir",
            str(samples.write_lcqmc(tmp_path / "data")),
            "--workdir",
            str(tmp_path / "w"),
            "--set",
            "max_train_steps=20",
            "--set",
            "learning_rate=1e-2",
            "--set",
            "global_batch_size=8",
            "--set",
            "max_seq_length=32",
        ]  # fmt: skip
    )
    assert code == 0
    encoder.rename(tmp_path / "moved")  # the model must not need it any more
    tuned = Predictor(tmp_path / "w")
    rows = (tmp_path / "w/predictions/test.jsonl").read_text("utf-8")
    written = [json.loads(row) for row in rows.splitlines()]
    again = tuned.classify([pair[:2] for pair in samples.PAIRS])
    assert [row["label"] for row in again] == [row["label"] for row in written]
    for a, b in zip(again, written, strict=True):
        assert a["probability"] == pytest.approx(b["probability"], abs=1e-5)
    # Training reached the encoder, not the head alone.
    assert not np.allclose(tuned.embed(SENTENCES), by_hub.embed(SENTENCES))


# --- cosines that mean something


def test_whitening_makes_mean_zero_and_covariance_one(tmp_path):
    rng = np.random.default_rng(0)
    sample = rng.normal(size=[500, 6]) @ rng.normal(size=[6, 6]) + 4
    whitening = similarity.Whitening.fit(sample)
    white = whitening(sample)
    np.testing.assert_allclose(white.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(np.cov(white.T), np.eye(6), atol=1e-3)
    # The first dimensions are those of largest variance.
    short = similarity.Whitening.fit(sample, 2)
    np.testing.assert_allclose(short(sample), white[:, :2], atol=1e-5)
    whitening.save(tmp_path / "w.npz")
    again = similarity.Whitening.load(tmp_path / "w.npz")
    np.testing.assert_array_equal(again(sample), white)
    with pytest.raises(UserError, match="needs more sentences"):
        similarity.Whitening.fit(sample[:6])


@pytest.mark.parametrize("levels", [1, 2, 9, 1000])
def test_pair_figures_against_counting(levels):
    """Equal scores cannot be told apart: 1 level is right for one label."""
    scipy_stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    scores = rng.integers(0, levels, 60) / 10
    labels = rng.integers(0, 2, 60)
    wins = [
        (p > n) + 0.5 * (p == n)
        for p in scores[labels == 1]
        for n in scores[labels == 0]
    ]
    figures = similarity.pair_figures(scores, labels)
    assert figures.auc == pytest.approx(np.mean(wins))
    best = max(
        np.mean((scores >= t) == labels) for t in [*np.unique(scores), np.inf]
    )
    assert figures.accuracy == pytest.approx(best)
    assert np.mean((scores >= figures.threshold) == labels) == pytest.approx(
        best
    )
    if levels > 1:
        rank = scipy_stats.spearmanr(scores, labels).statistic
        assert figures.spearman == pytest.approx(rank)
    else:
        assert figures.spearman == 0.0


def test_equal_scores_are_as_good_as_the_commoner_answer():
    figures = similarity.pair_figures(np.full(4, 0.3), np.array([0, 1, 0, 1]))
    assert figures == (0.5, 0.0, 0.5, 0.3)
    figures = similarity.pair_figures(np.full(4, 0.3), np.array([0, 1, 0, 0]))
    assert figures == (0.5, 0.0, 0.75, np.inf)


# --- the command line


def lines_of(capsys):
    return [json.loads(row) for row in capsys.readouterr().out.splitlines()]


def test_command_line(pretrained, tmp_path, capsys):
    model = ["--model", str(pretrained)]
    predict.main(["similarity", *model, *SENTENCES[:2]])
    (pair,) = lines_of(capsys)
    assert (pair["text_a"], pair["text_b"]) == tuple(SENTENCES[:2])

    predict.main(["similarity", *model, "--query", "今天", *SENTENCES])
    assert len(lines_of(capsys)) == 5

    predict.main(["fill-mask", *model, "北[MASK]", "--top_k", "2"])
    (row,) = lines_of(capsys)
    assert len(row["masks"][0]) == 2

    sentences = tmp_path / "in.txt"
    sentences.write_text("\n".join(SENTENCES), "utf-8")
    predict.main(
        [
            "embed",
            *model,
            "--input_file",
            str(sentences),
            "--output_file",
            str(tmp_path / "out.npy"),
            "--whiten_with",
            str(sentences),
            "--whiten_dimensions",
            "4",
            "--save_whitening",
            str(tmp_path / "w.npz"),
        ]  # fmt: skip
    )
    assert np.load(tmp_path / "out.npy").shape == (len(SENTENCES), 4)
    assert (tmp_path / "w.npz").is_file()


def tuned(pretrained, folder, name, **facts):
    """Writes an untrained model, with what its training data told."""
    from albert_tf2.finetuning import encoders
    from albert_tf2.tasks import base, registry

    task = registry.create(name, labels=facts.pop("labels", ()))
    for key, value in facts.items():
        setattr(task, key, value)
    loaded = encoders.load_encoder(str(pretrained))
    encoders.save(
        folder,
        model=encoders.build(task, loaded, seed=0),
        task=task,
        loaded=loaded,
        lengths=base.Lengths(max_seq_length=32, max_query_length=8),
    )
    return folder


def run(mode, model, *more):
    return predict.main([mode, "--model", str(model), *map(str, more)])


def test_a_blank_line_is_answered_by_null_and_order_is_kept(
    pretrained, tmp_path, capsys, monkeypatch
):
    model = tuned(
        pretrained, tmp_path / "m", "multi_label", labels="甲乙", pairs=False
    )
    lines = [*SENTENCES, "", *reversed(SENTENCES)]
    (tmp_path / "in.txt").write_text("\n".join(lines), "utf-8")
    run("classify", model, "--input_file", tmp_path / "in.txt")
    whole = lines_of(capsys)
    assert [answer["id"] for answer in whole] == list(range(len(lines)))
    assert [answer["text"] for answer in whole] == lines
    assert whole[len(SENTENCES)] == {
        **{"label": None, "id": len(SENTENCES), "text": ""}
    }
    for answer, again in zip(whole, reversed(whole), strict=True):
        if answer["text"]:
            assert answer["probabilities"] == pytest.approx(
                again["probabilities"], abs=1e-5
            )
            named = [n for n, p in answer["probabilities"].items() if p >= 0.5]
            assert answer["labels"] == named
    # In parts of a few lines the answers are the same.
    monkeypatch.setattr(predict, "PART_TEXTS", 3)
    monkeypatch.setattr(predict, "TELL_EVERY_SECONDS", -1)
    run("classify", model, "--batch_size=1", f"--input_file={tmp_path}/in.txt")
    captured = capsys.readouterr()
    for line, answer in zip(captured.out.splitlines(), whole, strict=True):
        again = json.loads(line)
        assert (again["id"], again["text"]) == (answer["id"], answer["text"])
    assert "of 33 texts" in captured.err


def test_scores_of_pairs(pretrained, tmp_path, capsys):
    facts = {"pairs": True, "mean": 2.5, "spread": 1.5, "steps": (0, 5)}
    model = tuned(pretrained, tmp_path / "m", "regression", **facts)
    run("score", model, *SENTENCES[:2])
    (answer,) = lines_of(capsys)
    assert (answer["text_a"], answer["text_b"]) == tuple(SENTENCES[:2])
    assert answer["nearest"] == (0 if answer["score"] < 2.5 else 5)
    records = [{"id": "x", "text_a": "今天", "text_b": "天气"}]
    samples.write_lines(tmp_path / "in.jsonl", records)
    run("score", model, "--input_file", tmp_path / "in.jsonl")
    (answer,) = lines_of(capsys)
    assert answer["id"] == "x"
    with pytest.raises(UserError, match="takes two texts"):
        run("score", model, "今天")


def test_answers_repeat_question_and_text(pretrained, tmp_path, capsys):
    model = tuned(pretrained, tmp_path / "m", "qa", has_unanswerable=True)
    run("answer", model, "天气如何", "今天天气很好。", "--top_k", 2)
    (answer,) = lines_of(capsys)
    assert answer["question"] == "天气如何" and len(answer["n_best"]) == 2


def test_embeddings_have_a_row_per_line(pretrained, tmp_path, capsys):
    (tmp_path / "in.txt").write_text("今天\n\n天气\n", "utf-8")
    target = tmp_path / "out.npy"
    run("embed", pretrained, f"--input_file={tmp_path}/in.txt",
        f"--output_file={target}")  # fmt: skip
    vectors = np.load(target)
    assert vectors.shape == (3, 32) and not vectors[1].any()
    assert vectors[0].any() and vectors[2].any()


def test_embeddings_are_written_part_by_part(
    pretrained, predictor, tmp_path, monkeypatch
):
    """Of a long file no more than a part is held, and order is kept."""
    # The first part, and a bit, is blank.
    lines = [*[""] * 20, *SENTENCES, "", *reversed(SENTENCES)]
    (tmp_path / "in.txt").write_text("\n".join(lines) + "\n", "utf-8")
    held = []
    embed = Predictor.embed

    def alive():
        return sum(type(o) is input_files.Entry for o in gc.get_objects())

    def counted(self, texts, **how):
        held.append((len(texts), alive() - before))
        return embed(self, texts, **how)

    before = alive()

    monkeypatch.setattr(predict, "PART_TEXTS", 3)
    monkeypatch.setattr(Predictor, "embed", counted)
    target = tmp_path / "out.npy"
    run("embed", pretrained, f"--input_file={tmp_path}/in.txt",
        f"--output_file={target}", "--batch_size=1",
        "--max_seq_length=64")  # fmt: skip
    size = 16  # batches of one text, which are more than `PART_TEXTS`
    assert max(texts for texts, _ in held) <= size
    assert max(entries for _, entries in held) <= size + 1
    monkeypatch.undo()
    vectors = np.load(target)
    whole = predictor.embed([line for line in lines if line])
    expected = np.zeros([len(lines), 32], np.float32)
    expected[[bool(line) for line in lines]] = whole
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    again = io.BytesIO()
    np.save(again, vectors)
    assert again.getvalue() == target.read_bytes()


def test_every_length_runs_in_one_program_and_nothing_is_padded(
    pretrained, monkeypatch
):
    """Texts of one length make a batch without padding."""
    from albert_tf2.model.albert import AlbertEncoder

    traced, asked = [], []
    call = AlbertEncoder.call

    def counted(self, inputs, training=None):
        traced.append(inputs["input_word_ids"].shape)
        return call(self, inputs, training=training)

    def collated(examples, **how):
        batch = encoding.collate(examples, **how)
        asked.append((batch["input_mask"].shape, batch["input_mask"].sum()))
        return batch

    monkeypatch.setattr(AlbertEncoder, "call", counted)
    monkeypatch.setattr(sentence_vectors, "collate", collated)
    predictor = Predictor(pretrained, batch_size=2)
    texts = ["今" * n for n in range(1, 20) for _ in range(2)]
    predictor.embed(texts)
    assert [shape.as_list() for shape in traced] == [[None, None]]
    assert len({shape[1] for shape, _ in asked}) == 19
    assert all(rows * length == real for (rows, length), real in asked)


@pytest.mark.parametrize(
    "content, reason",
    [
        ("甲\t乙\n\n丙\t\n", "line 3 holds"),
        ("甲\t乙\n丙\n", "line 2 holds '丙'"),
    ],
)
def test_faults_are_told_before_the_model_loads(
    pretrained, tmp_path, monkeypatch, content, reason
):
    model = tuned(pretrained, tmp_path / "m", "lcqmc", pairs=True)
    (tmp_path / "in.txt").write_text(content, "utf-8")
    monkeypatch.setattr(predict, "Predictor", None)
    with pytest.raises(UserError, match=reason):
        run("classify", model, "--input_file", tmp_path / "in.txt")
    with pytest.raises(UserError, match="which `tag` does not use: take `clas"):
        run("tag", model, "甲")


def test_interactive(pretrained, capsys):
    args = predict._parse(
        ["similarity", "--model", str(pretrained), "--interactive"]
    )
    typed = iter(["今天天气很好", "今天天气不错", ""])
    predict.interact(Predictor(pretrained), args, lambda prompt: next(typed))
    (row,) = lines_of(capsys)
    assert row["text_b"] == "今天天气不错"


@pytest.mark.parametrize(
    "argv, reason",
    [
        (["tag", "--model", "m"], "exactly one"),
        (["tag", "--model", "m", "a", "--interactive"], "exactly one"),
        (["embed", "--model", "m", "a"], "a name in .npy"),
        (["tag", "--model", "m", "--input_file", "nowhere"], "nowhere"),
        (["tag", "--model", "nowhere/at/all", "甲"], "does not exist"),
    ],
)
def test_bad_input(argv, reason):
    with pytest.raises(UserError) as error:
        predict.main(argv)
    assert reason in str(error.value)


def test_directions_without_variance_count_nothing():
    x = np.random.default_rng(0).normal(size=[50, 2])
    x = np.concatenate([x, x.sum(1, keepdims=True)], 1)  # of rank 2
    whitened = similarity.Whitening.fit(x)(x)
    np.testing.assert_allclose(whitened[:, :2].std(0, ddof=1), 1, rtol=1e-5)
    assert not whitened[:, 2].any()


def test_a_zero_vector_stays_zero_and_of_equals_the_first_is_nearest():
    assert not similarity.unit(np.zeros([1, 3])).any()
    same = np.ones([6, 3], np.float32)
    (found,) = similarity.nearest(same[:1], same, top_k=4)
    assert [place for place, _ in found] == [0, 1, 2, 3]


def test_no_mask_of_a_text_is_cut_off(tmp_path):
    tokenizer = Tokenizer(samples.write_vocab(tmp_path))
    words = MaskedWords(None, tokenizer, max_seq_length=8, positions=8)
    assert (
        words._packed("[MASK]今天[MASK]").ids.count(
            tokenizer.vocabulary.mask_id
        )
        == 2
    )
    with pytest.raises(UserError, match="a \\[MASK\\] stands after that"):
        words._packed("[MASK]" + "今天" * 9 + "[MASK]")
