"""Sentence vectors that are trained: files, losses, runs, exports."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import task_samples as samples
import tensorflow as tf
from checks import check_export

from albert_tf2 import finetune, predict
from albert_tf2.errors import UserError
from albert_tf2.finetuning import run as finetuning_run
from albert_tf2.finetuning import vectors
from albert_tf2.prediction import similarity
from albert_tf2.prediction.predictor import Predictor
from albert_tf2.recipes import FinetuneRecipe
from albert_tf2.tasks import registry
from albert_tf2.tasks import sentence_vectors as task_module

pytestmark = pytest.mark.usefixtures("warm_python")

SENTENCES = sorted({text for pair in samples.PAIRS for text in pair[:2]})
PROSE = ["今天天气很好,我喜欢", "小明爱踢足球,很快乐", "北京是中国首都,好"]
RECIPE = dict(
    max_seq_length=32,
    global_batch_size=8,
    learning_rate=3e-3,
    eval_every=1000,
    checkpoint_every=1000,
    hidden_dropout_prob=0.1,
    attention_probs_dropout_prob=0.1,
)


def read(folder, **changes):
    """Reads as the command does; returns the task, its data, what is said."""
    recipe = FinetuneRecipe(**{**RECIPE, **changes})
    task = registry.from_recipe("sentence_vectors", recipe)
    said = []
    data = finetune.read_data(task, folder, recipe, say=said.append)
    return task, data, "\n".join(said)


def write(folder, **files):
    folder.mkdir(exist_ok=True)
    for split, lines in files.items():
        text = "".join(f"{line}\n" for line in lines)
        (folder / f"{split}.txt").write_text(text, "utf-8")
    return folder


# --- files


def test_pairs_with_labels_are_learned_by_cosent(tmp_path):
    task, data, said = read(samples.write_lcqmc(tmp_path))
    assert (task.loss, task.metric) == ("cosent", "spearman")
    assert [row.label for row in data.train] == [1.0] * 4 + [0.0] * 4
    assert "CoSENT: 2 different labels from 0 to 1" in said
    # By hand: the four alike pairs share more characters than the others.
    assert (
        "baseline: shared characters: dev spearman 0.9300  auc 1.0000" in said
    )


def test_scores_need_not_be_two(tmp_path):
    task, data, said = read(samples.write_scores(tmp_path))
    assert task.loss == "cosent"
    assert "5 different labels from 0 to 4.5" in said
    assert set(task_module.pair_metrics([(0, 1), (1, 2), (2, 3)])) == {
        "spearman",
        "rows",
    }


@pytest.mark.parametrize(
    "lines, texts",
    [
        (PROSE, PROSE),  # a comma in every line is no column
        (["今天", "天气很好", "今天"], ["今天", "天气很好"]),
        (["句子", "今天", "天气很好"], ["今天", "天气很好"]),  # a header
        (["今天\t天气", "天气\t很好"], ["今天", "天气", "很好"]),
    ],
)
def test_texts_alone_are_learned_by_simcse(tmp_path, lines, texts):
    folder = write(tmp_path, train=lines)
    task, data, said = read(folder)
    assert task.loss == "simcse"
    assert sorted(row.text_a for row in data.train) == sorted(texts)
    assert {row.text_b for row in data.train} == {None}
    assert f"{len(texts)} different texts, each by itself" in said
    assert f"SimCSE: each of {len(texts)} texts" in said


def test_texts_are_measured_on_pairs(tmp_path):
    folder = samples.write_lcqmc(tmp_path, ("dev", "test"))
    task, data, said = read(write(folder, train=PROSE))
    assert task.metric == "spearman"
    assert len(data.train) == 3 and len(data.dev) == len(data.test) == 8
    assert data.dev[0].text_b and data.dev[0].label == 1.0
    task, data, said = read(
        samples.write_lcqmc(tmp_path / "b"), vector_loss="simcse"
    )
    assert "different texts, each by itself: labels are not used" in said
    assert [row.text_b for row in data.train] == [None] * len(SENTENCES)
    assert data.dev[0].text_b


def test_without_pairs_texts_are_told_from_each_other(tmp_path):
    task, data, _ = read(write(tmp_path, train=PROSE, dev=SENTENCES))
    assert task.metric == "log_likelihood"
    found = np.eye(3)[[0, 1, 1]]
    # Alone; one of two that are the same.
    expected = [-np.log(1 + 2 * np.exp(-20)), *[-np.log(2 + np.exp(-20))] * 2]
    np.testing.assert_allclose(
        task_module.own_log_likelihoods(found), expected, rtol=1e-6
    )
    np.testing.assert_allclose(
        task_module.own_log_likelihoods(found, group=2)[2], 0, atol=1e-9
    )


@pytest.mark.parametrize(
    "train, changes, reason",
    [
        (PROSE, {"vector_loss": "cosent"}, "has no labels"),
        (["甲\t乙\t1", "丙\t丁\t1"], {}, "all labels are 1"),
        (["甲\t乙\t1", "丙\t丁\tx"], {}, "line 2|label"),
        (["甲", "甲"], {}, "holds one text"),
        (PROSE, {"labels": ("a",)}, "`labels` has no meaning"),
        (["text\tlabel", "甲乙\t1", "丙丁\t0"], {}, "vector_loss=simcse"),
    ],
)
def test_what_cannot_be_learned_is_refused(tmp_path, train, changes, reason):
    with pytest.raises(UserError, match=reason):
        read(write(tmp_path, train=train), **changes)


def test_the_columns_may_be_named(tmp_path):
    lines = [f"{n}\t{text}" for n, text in enumerate(SENTENCES)]
    folder = samples.write_lcqmc(write(tmp_path, train=lines), ("dev",))
    _, data, _ = read(folder, columns=("_", "text_a"))
    assert [row.text_a for row in data.train] == SENTENCES
    assert data.dev[0].label == 1.0


# --- losses


def numpy_cosent(cosines, labels):
    total = 1.0
    for i, nearer in enumerate(labels):
        for j, farther in enumerate(labels):
            if nearer > farther:
                total += np.exp(20 * (cosines[j] - cosines[i]))
    return np.log(total)


def test_cosent_is_the_sum_over_pairs():
    rng = np.random.default_rng(0)
    cosines = rng.uniform(-1, 1, 12).astype(np.float32)
    labels = rng.integers(0, 4, 12).astype(np.float32)
    weights = np.ones(12, np.float32)
    assert float(vectors.cosent(cosines, labels, weights)) == pytest.approx(
        numpy_cosent(cosines, labels), rel=1e-5
    )
    weights[9:] = 0  # padding
    assert float(vectors.cosent(cosines, labels, weights)) == pytest.approx(
        numpy_cosent(cosines[:9], labels[:9]), rel=1e-5
    )


def test_a_batch_of_one_label_teaches_nothing():
    cosines = tf.Variable([0.3, -0.2, 0.9])
    with tf.GradientTape() as tape:
        loss = vectors.cosent(cosines, tf.ones([3]), tf.ones([3]))
    assert float(loss) == 0
    assert tape.gradient(loss, cosines).numpy().tolist() == [0, 0, 0]


def test_simcse_is_the_likelihood_of_ones_partner():
    rng = np.random.default_rng(1)
    first, second = (
        similarity.unit(rng.normal(size=[5, 8])).astype(np.float32)
        for _ in range(2)
    )
    weights = np.array([1, 1, 1, 1, 0], np.float32)
    found = vectors.simcse(first, second, weights).numpy()
    for i in range(4):
        scores = np.exp([20 * first[i] @ second[j] for j in range(4)])
        assert found[i] == pytest.approx(
            -np.log(scores[i] / scores.sum()), rel=1e-4
        )


@pytest.mark.parametrize("loss", ["cosent", "simcse"])
@pytest.mark.parametrize("pooling", ["mean", "cls", "pooled"])
def test_gradients_reach_the_encoder_and_padding_is_nothing(
    checkpoint, loss, pooling
):
    """Rows of padding change neither the loss nor a gradient."""
    from albert_tf2 import load_pretrained

    encoder = load_pretrained(checkpoint).encoder
    model = vectors.VectorModel(encoder, pooling, loss)
    ids = np.random.default_rng(2).integers(5, 40, [6, 2, 7]).astype(np.int32)
    mask = np.ones_like(ids)
    mask[:, :, 5:] = 0
    mask[4:] = 0

    def step(rows):
        inputs = {
            "input_word_ids": ids[:rows],
            "input_mask": mask[:rows],
            "input_type_ids": 0 * ids[:rows],
        }
        labels = np.array([1, 0, 1, 0, 0, 0], np.float32)[:rows]
        weights = np.array([1, 1, 1, 1, 0, 0], np.float32)[:rows]
        with tf.GradientTape() as tape:
            found = model({k: tf.constant(v) for k, v in inputs.items()})
            value = model.loss_sum(found, labels, weights)
        variable = encoder.embeddings.word_embeddings
        gradient = tf.convert_to_tensor(tape.gradient(value, variable))
        np.testing.assert_allclose(
            np.linalg.norm(found[:4], axis=-1), 1, rtol=1e-5
        )
        return float(value), gradient.numpy()

    value, gradient = step(4)
    padded, same = step(6)
    assert value > 0 and np.abs(gradient).max() > 1e-3
    assert padded == pytest.approx(value, rel=1e-5)
    np.testing.assert_allclose(same, gradient, atol=1e-5)


def test_the_area_is_the_chance_of_the_right_order():
    rng = np.random.default_rng(3)
    scores = rng.integers(0, 5, 40).astype(np.float64)
    labels = rng.integers(0, 2, 40)
    wins = [
        (a > b) + (a == b) / 2
        for a in scores[labels == 1]
        for b in scores[labels == 0]
    ]
    figures = task_module.pair_metrics(list(zip(labels, scores, strict=True)))
    assert figures["auc"] == pytest.approx(np.mean(wins))
    assert figures["rows"] == 40
    assert figures["spearman"] == pytest.approx(
        similarity.pair_figures(scores, labels).spearman
    )


# --- runs


def run(folder, checkpoint, workdir, *, said=None, **changes):
    recipe = FinetuneRecipe(**{**RECIPE, **changes})
    task = registry.from_recipe("sentence_vectors", recipe)
    said = [] if said is None else said
    data = finetune.read_data(task, folder, recipe, say=said.append)
    return finetune.fine_tune(
        task,
        data,
        init_checkpoint=str(checkpoint),
        recipe=recipe,
        workdir=workdir,
        say=said.append,
    )


def test_cosent_learns_its_pairs_by_heart(tmp_path, checkpoint):
    folder = samples.write_lcqmc(tmp_path / "data")
    results = run(folder, checkpoint, tmp_path / "w", num_train_epochs=40)
    assert results["test"]["auc"] == 1.0
    # As high as ranks of two labels go.
    assert results["test"]["spearman"] == pytest.approx(0.873, abs=1e-3)
    lines = (tmp_path / "w/predictions/test.jsonl").read_text("utf-8")
    predicted = [json.loads(line)["similarity"] for line in lines.splitlines()]
    assert min(predicted[:4]) > max(predicted[4:])
    again = Predictor(tmp_path / "w").similarity(
        [pair[0] for pair in samples.PAIRS], [p[1] for p in samples.PAIRS]
    )
    np.testing.assert_allclose(again, predicted, atol=1e-5)


def test_simcse_spreads_texts_and_resumes_exactly(
    tmp_path, checkpoint, monkeypatch
):
    """A run that was killed in its third step equals one that was not."""
    folder = write(tmp_path / "data", train=SENTENCES, dev=SENTENCES)
    changes = {"max_train_steps": 6, "checkpoint_every": 2, "log_every": 1}
    changes |= {"num_train_epochs": 30, "eval_every": 3}
    said = []
    results = run(folder, checkpoint, tmp_path / "whole", said=said, **changes)
    assert results["best_step"] > 0
    run_steps = finetuning_run.Run.run_steps

    def killed(self, batches, step, count):
        if step == 4:
            raise KeyboardInterrupt
        return run_steps(self, batches, step, count)

    with monkeypatch.context() as patch:
        patch.setattr(finetuning_run.Run, "run_steps", killed)
        with pytest.raises(KeyboardInterrupt):
            run(folder, checkpoint, tmp_path / "cut", **changes)
    run(folder, checkpoint, tmp_path / "cut", **changes)
    whole, cut = (
        Predictor(tmp_path / name).embed(SENTENCES) for name in ("whole", "cut")
    )
    np.testing.assert_array_equal(cut, whole)
    rows = (tmp_path / "whole/evaluation.jsonl").read_text().splitlines()
    figures = [json.loads(row)["log_likelihood"] for row in rows]
    before = task_module.own_log_likelihoods(
        similarity.unit(Predictor(checkpoint).embed(SENTENCES))
    )
    assert figures[-1] > before.mean()


def test_simcse_without_dropout_is_refused(tmp_path, checkpoint):
    folder = write(tmp_path / "data", train=SENTENCES)
    none = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    with pytest.raises(UserError, match="hidden_dropout_prob=0.1"):
        run(folder, checkpoint, tmp_path / "w", **none)


# --- answers


@pytest.fixture(scope="module")
def tuned(checkpoint, tmp_path_factory):
    """Returns a function from a pooling to a folder, untrained."""
    from albert_tf2.finetuning import encoders
    from albert_tf2.tasks import base

    root = tmp_path_factory.mktemp("vectors")

    def folder_of(pooling="mean", layout="brightmart"):
        folder = root / f"{pooling}-{layout}"
        if not folder.exists():
            task = registry.create("sentence_vectors", pooling=pooling)
            loaded = encoders.load_encoder(str(source(layout)))
            encoders.save(
                folder,
                model=encoders.build(task, loaded),
                task=task,
                loaded=loaded,
                lengths=base.Lengths(max_seq_length=24),
            )
        return folder

    def source(layout):
        if layout == "brightmart":
            return checkpoint
        from albert_tf2.checkpoints import save_pretrained
        from albert_tf2.keras_api import keras
        from albert_tf2.model.albert import AlbertPretrainer

        keras.utils.set_random_seed(4)
        vocab_file = samples.write_vocab(root)
        config = samples.small_config(vocab_file, layout=layout)
        return save_pretrained(
            AlbertPretrainer(config), root / "google", vocab_file=vocab_file
        )

    return folder_of


@pytest.mark.parametrize("pooling", ["mean", "cls", "pooled"])
def test_vectors_are_those_of_the_pooling_at_length_one(
    tuned, checkpoint, pooling
):
    predictor = Predictor(tuned(pooling))
    assert predictor.max_seq_length == 24
    found = predictor.embed(SENTENCES)
    plain = Predictor(checkpoint).embed(SENTENCES, pooling=pooling)
    np.testing.assert_allclose(found, similarity.unit(plain), atol=1e-5)
    assert found.dtype == np.float32
    other = {"mean": "cls"}.get(pooling, "mean")
    with pytest.raises(UserError, match=f"pooling={pooling}.*Received"):
        predictor.embed(SENTENCES, pooling=other)
    with pytest.raises(UserError, match="fine-tuned for classification"):
        predictor.classify("今天")


def test_nearest_is_the_whole_product_sorted(monkeypatch):
    rng = np.random.default_rng(5)
    candidates = rng.integers(-2, 3, [50, 4]).astype(np.float32)
    queries = candidates[:7] + 0.5
    cosines = similarity.unit(queries) @ similarity.unit(candidates).T
    monkeypatch.setattr(similarity, "CHUNK", 8)
    monkeypatch.setattr(similarity, "MOST_QUERIES", 3)
    found = similarity.nearest(queries, candidates, top_k=6)
    for row, ranked in zip(cosines, found, strict=True):
        expected = np.argsort(-row, kind="stable")[:6]
        np.testing.assert_allclose(
            [cosine for _, cosine in ranked], row[expected], atol=1e-6
        )
        assert len({index for index, _ in ranked}) == 6
    assert len(similarity.nearest(queries, candidates[:2])[0]) == 2
    with pytest.raises(UserError, match="have 4 numbers.*with 3"):
        similarity.nearest(queries[:, :3], candidates)


def test_a_search_reads_vectors_that_were_written(tuned, tmp_path, capsys):
    lines = [*SENTENCES[:3], "", *SENTENCES[3:]]
    texts = write(tmp_path, texts=lines) / "texts.txt"
    model = ["--model", str(tuned()), "--input_file", str(texts)]
    file = str(tmp_path / "texts.npy")
    predict.main(["embed", *model, "--output_file", file])
    query = ["similarity", *model, "--query", SENTENCES[4], "--top_k", "3"]
    capsys.readouterr()
    predict.main(query)
    expected = capsys.readouterr().out
    predict.main([*query, "--vectors", file])
    found = capsys.readouterr().out
    assert [json.loads(line)["text"] for line in found.splitlines()] == [
        json.loads(line)["text"] for line in expected.splitlines()
    ]
    assert json.loads(found.splitlines()[0])["text"] == SENTENCES[4]
    np.save(file, np.zeros([3, 32], np.float32))
    with pytest.raises(UserError, match="3 vectors, and .* lines"):
        predict.main([*query, "--vectors", file])
    (tmp_path / "texts.npy").write_text("[]")
    with pytest.raises(UserError, match="vectors are written with .embed"):
        predict.main([*query, "--vectors", file])
    with pytest.raises(UserError, match="does not use: take `similarity`"):
        predict.main(["tag", "--model", str(tuned()), "今天"])
    with pytest.raises(UserError, match="--query TEXT --input_file"):
        predict.main(["similarity", "--vectors", file, "--model", "m", "a"])


def test_the_service_gives_vectors(tuned):
    testclient = pytest.importorskip("fastapi.testclient")
    from albert_tf2.prediction import service

    predictor = Predictor(tuned())
    served = service.Service(predictor)
    client = testclient.TestClient(served.app, base_url="http://127.0.0.1")
    served.warm_up()
    assert client.get("/info").json()["routes"] == ["similarity", "embed"]
    found = client.post("/embed", json={"texts": SENTENCES[:2]}).json()
    np.testing.assert_allclose(found, predictor.embed(SENTENCES[:2]), atol=1e-5)
    refused = client.post(
        "/embed", json={"texts": ["今天"], "pooling": "cls"}
    ).json()
    assert "tuned for vectors by `pooling=mean`" in refused["detail"]
    assert served.batcher.close(5)


# --- on their way out


def export(folder, tmp_path, flag, what, *flags):
    assert flag == "--what"
    return check_export(folder, tmp_path / "out", what, *flags)


def ids_of(predictor, texts):
    from albert_tf2.tasks.encoding import Example, collate, pack, tokenize_all

    tokenizer = predictor.tokenizer
    examples = [
        Example(i, (pack([ids], tokenizer.vocabulary, 24),))
        for i, ids in enumerate(tokenize_all(tokenizer, texts))
    ]
    return collate(examples, size=len(texts))


@pytest.mark.parametrize(
    "pooling", [pytest.param("mean", marks=pytest.mark.large), "cls"]
)
def test_the_encoders_pooled_output_is_the_vector(
    tuned, tmp_path, capsys, pooling
):
    """A process that knows only the moved folder compared it (`verify`)."""
    folder = tuned(pooling)
    what = "encoder" if pooling == "cls" else "preprocessor,encoder"
    out = export(folder, tmp_path, "--what", what)
    printed = capsys.readouterr().out
    assert "pooled_output differs from the model in memory by" in printed
    assert (out / "preprocessor/1").exists() == (what != "encoder")
    predictor = Predictor(folder)
    expected = predictor.embed(SENTENCES)
    loaded = tf.saved_model.load(str(out / "encoder/1"))
    found = loaded(ids_of(predictor, SENTENCES))
    for name in ("pooled_output", "default"):
        np.testing.assert_allclose(found[name], expected, atol=1e-5)
    # Read back, it is asked for its vectors, not for another mean.
    again = Predictor(str(out / "encoder/1"))
    np.testing.assert_allclose(again.embed(SENTENCES), expected, atol=1e-5)


def test_serving_embeds_and_compares(tuned, tmp_path, capsys):
    folder = tuned()
    out = export(folder, tmp_path, "--what", "serving,cards")
    printed = capsys.readouterr().out
    assert "embedding differ from the predictor's by" in printed
    loaded = tf.saved_model.load(str(out / "serving/1"))
    compare = loaded.signatures["similarity"]
    a, b = SENTENCES[:4], SENTENCES[4:8]
    found = compare(text_a=tf.constant(a), text_b=tf.constant(b))
    np.testing.assert_allclose(
        found["similarity"], Predictor(folder).similarity(a, b), atol=1e-5
    )
    assert {*loaded.signatures} == {"serving_default", "embed", "similarity"}
    card = (out / "cards/1/model.md").read_text("utf-8")
    assert "pipeline_tag: sentence-similarity" in card
    assert "length 1 for each text (pooling mean)" in card


def test_phones_embed(tuned, tmp_path):
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    folder = tuned()
    out = export(folder, tmp_path, "--what", "tflite") / "tflite" / "1"
    run = litert.Interpreter(str(out / "vectors_fp32_24.tflite"))
    run = run.get_signature_runner()
    predictor = Predictor(folder)
    for text in SENTENCES[:3]:
        inputs = ids_of(predictor, [text])
        padded = {
            name: np.pad(array, [(0, 0), (0, 24 - array.shape[1])])
            for name, array in inputs.items()
        }
        found = run(**padded)["embedding"]
        np.testing.assert_allclose(found, predictor.embed(text), atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*no mlm and no sop head")
def test_onnx_embeds(tuned, tmp_path):
    pytest.importorskip("tf2onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    folder = tuned("cls")
    out = export(folder, tmp_path, "--what", "onnx") / "onnx" / "1"
    session = onnxruntime.InferenceSession(str(out / "model.onnx"))
    predictor = Predictor(folder)
    (found,) = session.run(["embedding"], ids_of(predictor, SENTENCES))
    np.testing.assert_allclose(found, predictor.embed(SENTENCES), atol=1e-5)
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["task"])["pooling"] == "cls"


@pytest.mark.filterwarnings("ignore:.*no mlm and no sop head")
@pytest.mark.parametrize(
    "target, layout",
    [("tf1", "brightmart"), ("tf2", "brightmart"), ("huggingface", "google")],
)
def test_other_formats_keep_the_pooling(tuned, tmp_path, target, layout):
    from albert_tf2 import convert

    if target == "huggingface":
        pytest.importorskip("transformers")
    folder = tuned("cls", layout)
    flags = ["--input", str(folder), "--output", str(tmp_path / "out")]
    assert convert.main([*flags, "--to", target]) == 0
    np.testing.assert_allclose(
        Predictor(tmp_path / "out").embed(SENTENCES),
        Predictor(folder).embed(SENTENCES),
        atol=1e-5,
    )


def test_a_plain_hub_encoder_is_refused(tuned, tmp_path, capsys):
    from albert_tf2 import convert

    flags = ["--input", str(tuned()), "--output", str(tmp_path / "out")]
    with pytest.raises(UserError, match="--what encoder publishes one"):
        convert.main([*flags, "--to", "hub"])
    convert.main(["--describe", str(tuned())])
    assert "sentence_vectors, pooling mean" in capsys.readouterr().out


def test_a_hub_encoder_that_was_tuned_is_served_whole(tmp_path):
    """Its graph pools as its makers did."""
    from albert_tf2.hub_export import tuned_parts

    task = registry.create("sentence_vectors").describe()
    (tmp_path / "task.json").write_text(json.dumps(task))
    folder = str(tmp_path)
    own = ["preprocessor", "encoder"]
    assert tuned_parts.parts_of(None, "m", folder) == own
    assert {*own} < {*tuned_parts.parts_of(["all"], "m", folder)}
    (tmp_path / "hub_encoder").mkdir()
    assert tuned_parts.parts_of(None, "m", folder) == ["serving"]
    with pytest.raises(UserError, match="tuned on a hub encoder.*serving"):
        tuned_parts.parts_of(["encoder"], "m", folder)
    assert "encoder" not in tuned_parts.parts_of(["all"], "m", folder)


@pytest.mark.parametrize(
    "key, value", [("pooling", "max"), ("loss", 3), ("pooling", None)]
)
def test_a_damaged_task_file_is_refused(tuned, tmp_path, key, value):
    import shutil

    from albert_tf2.checkpoints import read_weights

    folder = shutil.copytree(tuned(), tmp_path / "m")
    task = json.loads((folder / "task.json").read_text("utf-8"))
    (folder / "task.json").write_text(json.dumps({**task, key: value}), "utf-8")
    with pytest.raises(UserError, match=f"task.json.*`{key}` is damaged"):
        Predictor(folder)
    if key == "pooling":
        with pytest.raises(UserError, match=f"task.json.*`{key}` is damaged"):
            read_weights(folder)


def test_sentence_transformers_is_told_how_to_pool(tuned, tmp_path):
    """Its version 5.7 gave these vectors within 2e-7 when this was written."""
    pytest.importorskip("safetensors")
    from albert_tf2.checkpoints import read_weights, sentence_transformers

    found = read_weights(tuned("cls"))
    sentence_transformers.write(found, tmp_path)
    modules = json.loads((tmp_path / "modules.json").read_text())
    assert [(m["path"], m["type"].rpartition(".")[2]) for m in modules] == [
        ("", "Transformer"),
        ("1_Pooling", "Pooling"),
        ("2_Normalize", "Normalize"),
    ]
    assert (tmp_path / "2_Normalize").is_dir()
    pooling = json.loads((tmp_path / "1_Pooling/config.json").read_text())
    assert pooling["word_embedding_dimension"] == 32
    assert [name for name, on in pooling.items() if on is True] == [
        "pooling_mode_cls_token"
    ]
    cut = json.loads((tmp_path / "sentence_bert_config.json").read_text())
    assert cut["max_seq_length"] == 24
    (tmp_path / "plain").mkdir()
    sentence_transformers.write(
        read_weights(tuned("pooled")), tmp_path / "plain"
    )
    assert not [*(tmp_path / "plain").iterdir()]


# --- the table of results


def test_the_table_compares_kinds_of_vectors(tmp_path, checkpoint, capsys):
    path = Path(__file__).parents[1] / "benchmarks" / "sentence_vectors.py"
    spec = importlib.util.spec_from_file_location("vector_results", path)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    command = ["--data_dir", str(samples.write_lcqmc(tmp_path / "data"))]
    command += ["--init_checkpoint", str(checkpoint), "--dimensions", "8"]
    command += ["--workdir", str(tmp_path / "w"), "--set", "max_seq_length=24"]
    command += ["--set", "num_train_epochs=4", "--set", "learning_rate=1e-2"]
    assert benchmark.main(command) == 0
    rows = json.loads((tmp_path / "w/results.json").read_text())
    assert [row["vectors"] for row in rows] == [
        "as they are",
        "whitened to 8",
        "SimCSE",
        "SimCSE, whitened to 8",
        "CoSENT",
    ]
    expected = similarity.pair_figures(
        Predictor(tmp_path / "w/cosent").similarity(
            [pair[0] for pair in samples.PAIRS], [p[1] for p in samples.PAIRS]
        ),
        np.array([int(pair[2]) for pair in samples.PAIRS]),
    )
    assert rows[4]["auc"] == pytest.approx(expected.auc)
    assert rows[4]["steps"] == 4
    table = (tmp_path / "w/results.md").read_text()
    assert table in capsys.readouterr().out
    assert f"| CoSENT | 4 | {rows[4]['seconds']:.0f} |" in table
