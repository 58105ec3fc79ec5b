"""The engine without TensorFlow: the same answers, from the same folder."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import test_task_exports
from bare_python import BarePython
from hypothesis import given
from hypothesis import strategies as st
from test_task_exports import hard_texts

from albert_tf2 import Predictor, UserError, predict
from albert_tf2.finetuning.model import TaskHead
from albert_tf2.hub_export import export, litert_part
from albert_tf2.model.albert import AlbertEncoder
from albert_tf2.prediction import litert, litert_cache, litert_file
from albert_tf2.settings import POOLINGS
from albert_tf2.tasks import base
from albert_tf2.tasks.encoding import Packed

pytest.importorskip("ai_edge_litert", reason="[litert]")
pytestmark = pytest.mark.usefixtures("warm_python", "cache")

# Fixtures: a small model, and its fine-tuned children.
pretrained = test_task_exports.pretrained
tuned = test_task_exports.tuned
TEXTS = hard_texts(60)
WHERE = "litert/1/model_fp32.tflite"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALBERT_TF2_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def exported(pretrained, tmp_path_factory):
    """Files of the pre-trained model, as a user exports them."""
    folder = tmp_path_factory.mktemp("exported")
    export.main(
        ["--checkpoint", str(pretrained), "--what", "litert"]
        + ["--export_dir", str(folder)]
    )
    return folder / "litert" / "1"


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bare") / "packages"
    return BarePython(folder, ["numpy", "ai_edge_litert"])


def check_close(found, expected):
    """Compares answers: numbers within 1e-5 (of their size), else exactly."""
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        found, expected = list(found.values()), list(expected.values())
    if isinstance(expected, list):
        assert len(found) == len(expected)
        for pair in zip(found, expected, strict=True):
            check_close(*pair)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-5)
    else:
        assert found == expected


@given(st.lists(st.integers(2, 3 * litert.ROW_TOKENS)))
def test_rows_hold_every_text_once_and_no_more_than_fits(lengths):
    rows = list(litert.fill_rows(lengths))
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    for row in rows:
        held = sum(lengths[i] for i in row)
        assert held <= litert.ROW_TOKENS or len(row) == 1


def test_rows_of_short_texts_are_nearly_full():
    lengths = [5 + 7 * i % 23 for i in range(400)]
    rows = list(litert.fill_rows(lengths))
    assert len(rows) <= -(-sum(lengths) // litert.ROW_TOKENS) + 1
    assert list(litert.fill_rows([30, 40, 12, 3])) == [[1, 2, 3], [0]]


@pytest.mark.parametrize("pooling", POOLINGS)
def test_vectors_are_tensorflows(pretrained, pooling):
    expected = Predictor(pretrained).embed(TEXTS, pooling=pooling)
    ours = Predictor(pretrained, engine="litert")
    found = ours.embed(TEXTS, pooling=pooling)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    # Neighbours in a row do not look at each other.
    for text, vector in zip(TEXTS[:9], found, strict=False):
        alone = ours.embed([text], pooling=pooling)[0]
        np.testing.assert_allclose(alone, vector, atol=1e-5)
    assert ours.embed([]).shape == (0, 0)
    assert ours.task is None and not ours.fills_masks


ASKED = {
    "tnews": ("classify", TEXTS),
    "lcqmc": ("classify", list(zip(TEXTS, TEXTS[::-1], strict=True))),
    "multi_label": ("classify", TEXTS),
    "regression": ("score", list(zip(TEXTS, TEXTS[::-1], strict=True))),
    "ner": ("tag", TEXTS),
    # Not of the text that repeats itself: it has one answer several times.
    "cmrc2018": (
        "answer", [("天气如何", t) for t in [*TEXTS[4:], "".join(TEXTS[4:14])]]
    ),
    "c3": (
        "choose",
        [(t, "天气？", ["好", "坏", "不错"][: 2 + i % 2])
         for i, t in enumerate(TEXTS)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ASKED)
def test_a_fine_tuned_model_answers_as_in_tensorflow(name, tuned):
    mode, asked = ASKED[name]
    folder = tuned(name)
    theirs, ours = Predictor(folder), Predictor(folder, engine="litert")
    expected = getattr(theirs, mode)(asked)
    check_close(getattr(ours, mode)(asked), expected)
    assert ours.task.name == name and ours.example() == theirs.example()
    np.testing.assert_allclose(
        ours.embed(TEXTS[:9]), theirs.embed(TEXTS[:9]), atol=1e-5
    )
    with pytest.raises(UserError, match="pre-trained model with its masked"):
        ours.fill_mask("今天[MASK]")


@pytest.mark.parametrize("pooling", ["mean", "pooled"])
def test_a_model_for_vectors_keeps_its_pooling(pooling, pretrained, tmp_path):
    from albert_tf2.finetuning import encoders
    from albert_tf2.tasks import base, registry

    task = registry.create("sentence_vectors")
    facts = {"labels": [], "pairs": True, "pooling": pooling, "loss": "cosent"}
    task.restore({"task": "sentence_vectors", **facts})
    loaded = encoders.load_encoder(str(pretrained))
    encoders.save(
        tmp_path / "model",
        model=encoders.build(task, loaded, seed=0),
        task=task,
        loaded=loaded,
        lengths=base.Lengths(max_seq_length=20),
    )
    ours = Predictor(tmp_path, engine="litert")
    expected = Predictor(tmp_path).embed(TEXTS)
    np.testing.assert_allclose(ours.embed(TEXTS), expected, atol=1e-5)
    with pytest.raises(
        UserError, match=f"tuned for vectors by `pooling={pooling}"
    ):
        ours.embed(TEXTS, pooling="cls")


def test_eight_bits_are_near(pretrained):
    from albert_tf2.prediction.similarity import cosines

    expected = Predictor(pretrained).embed(TEXTS)
    found = Predictor(pretrained, engine="litert-int8").embed(TEXTS)
    assert 0.99 < cosines(expected, found).min() < 0.999999


def test_predict_needs_no_tensorflow_for_a_file(bare, exported, pretrained):
    """The whole command, where TensorFlow cannot be imported."""
    assert "No module named" in bare.run("import tensorflow").stderr
    asked = ["花呗怎么还款", "如何还花呗"]
    command = ["similarity", "--engine", "litert", "--model"]
    named = [*command, str(exported / "model_fp32.tflite"), *asked]
    run = bare.run(f"from albert_tf2 import predict\npredict.main({named})")
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""  # nor does LiteRT talk
    (expected,) = Predictor(pretrained).similarity(*asked)
    found = json.loads(run.stdout)["similarity"]
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-5)
    folder = bare.run(
        "from albert_tf2 import predict\n"
        f"predict.main({[*command, str(exported), *asked]})"
    )
    assert folder.stdout == run.stdout


def test_predict_needs_no_tensorflow_the_second_time(
    bare,
    tuned,
    cache,
    tmp_path,
):
    folder = tuned("tnews")
    expected = Predictor(folder, engine="litert").classify(["今天天气很好"])

    def run_with(cache):
        return bare.run(
            f"import os; os.environ['ALBERT_TF2_CACHE'] = {str(cache)!r}\n"
            "from albert_tf2 import predict\n"
            "predict.main(['classify', '--engine', 'litert', '今天天气很好',"
            f" '--model', {str(folder)!r}])"
        )

    run = run_with(cache)
    assert run.returncode == 0 and run.stderr == "", run.stderr
    assert json.loads(run.stdout)["label"] == expected[0]["label"]
    # What is not in the cache cannot be made there.
    run = run_with(tmp_path)
    assert "which needs TensorFlow: where that is, run" in run.stderr


def test_a_model_is_converted_once(pretrained, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ALBERT_TF2_CACHE", str(tmp_path / "cache"))
    first = Predictor(pretrained, engine="litert").embed(TEXTS)
    told = capsys.readouterr().err
    assert told.startswith(f"converting {pretrained} for LiteRT, once, with")
    assert told.count("\n") == 1
    # The same weights elsewhere are the same model.
    copy = shutil.copytree(pretrained, tmp_path / "copy")
    again = Predictor(copy, engine="litert").embed(TEXTS)
    assert np.array_equal(first, again)
    Predictor(pretrained, engine="litert-int8")
    assert capsys.readouterr().err == ""


def test_two_processes_convert_once(pretrained, tmp_path):
    environment = {**os.environ, "ALBERT_TF2_CACHE": str(tmp_path)}
    command = [sys.executable, "-m", "albert_tf2.predict", "similarity"]
    command += ["--engine", "litert", "--model", str(pretrained)]
    both = [
        subprocess.Popen(
            [*command, "今天天气很好", "今天天气不错"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    outputs = [process.communicate() for process in both]
    assert outputs[0][0] == outputs[1][0] != ""
    told = "".join(errors for _, errors in outputs)
    assert told.count("converting ") == 1, told


@pytest.mark.parametrize("damage", ["network", "archive", "cut", "empty"])
def test_a_damaged_file_is_told_before_it_is_opened(damage, exported, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(
        damaged((exported / "model_fp32.tflite").read_bytes(), damage)
    )
    with pytest.raises(UserError, match="model.tflite is damaged"):
        Predictor(path, engine="litert")


def damaged(whole, damage):
    return {
        "network": whole[:9000] + bytes([whole[9000] ^ 1]) + whole[9001:],
        "archive": whole[:-5],
        "cut": whole[:5000],
        "empty": b"",
    }[damage]


@pytest.mark.parametrize(
    "change",
    [
        {"bytes": "9"},
        {"config": {}},
        {"config": {"max_position_embeddings": None}},
        {"sha256": None},
    ],
)
def test_forged_metadata_are_told_in_a_sentence(change, exported, tmp_path):
    whole = (exported / "model_fp32.tflite").read_bytes()
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    metadata = json.loads(parts["metadata.json"])
    forged = tmp_path / "model.tflite"
    forged.write_bytes(whole[: metadata["bytes"]])
    parts["metadata.json"] = json.dumps({**metadata, **change}).encode()
    with zipfile.ZipFile(forged, "a") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    with pytest.raises(UserError, match="model.tflite is damaged"):
        litert_file.read(forged)


def test_what_litert_cannot_run_is_told_in_a_sentence(exported, tmp_path):
    file = litert_file.read(exported / "model_fp32.tflite")
    other = tmp_path / "model.tflite"
    other.write_bytes(b"TFL3" * 100)
    with pytest.raises(UserError, match="does not run on this ai-edge-litert"):
        litert.RowModel(file._replace(path=str(other)))


def test_a_damaged_file_of_the_cache_is_made_anew(pretrained, cache, capsys):
    expected = Predictor(pretrained, engine="litert").embed(TEXTS)
    path = cache / "litert" / litert_cache.content_of(pretrained, None) / WHERE
    whole = path.read_bytes()
    path.write_bytes(damaged(whole, "network"))
    capsys.readouterr()
    again = Predictor(pretrained, engine="litert").embed(TEXTS)
    assert "is damaged" in capsys.readouterr().err
    assert np.array_equal(again, expected)
    assert path.read_bytes() == whole


def test_what_decides_answers_names_the_file(pretrained, tuned, tmp_path):
    known = {litert_cache.content_of(pretrained, None)}

    def another(*place, file, old, new):
        copy = tmp_path / f"copy{len(known)}"
        shutil.copytree(place[0], copy)
        path = copy.joinpath(file)
        content = path.read_bytes()
        assert old in content
        path.write_bytes(content.replace(old, new))
        known.add(litert_cache.content_of(copy, None))

    another(pretrained, file="vocab.txt", old="花\n".encode(), new=b"zz\n")
    another(pretrained, file="text_settings.json", old=b"true", new=b"false")
    another(
        pretrained,
        file="albert_config.json",
        old=b'"num_attention_heads": 2',
        new=b'"num_attention_heads": 4',
    )
    folder = tuned("tnews")
    known.add(litert_cache.content_of(folder, None))
    another(
        folder, file="model/task.json", old="体育".encode(), new="育体".encode()
    )
    weights = next(pretrained.glob("*.data-*")).name
    content = (pretrained / weights).read_bytes()
    another(pretrained, file=weights, old=content[-8:], new=bytes(8))
    other = tmp_path / "other.txt"
    other.write_bytes((pretrained / "vocab.txt").read_bytes() + b"zz\n")
    known.add(litert_cache.content_of(pretrained, other))
    assert len(known) == 8


def test_a_child_that_fails_says_why(pretrained, tmp_path):
    copy = shutil.copytree(pretrained, tmp_path / "copy")
    with open(copy / "vocab.txt", "a", encoding="utf-8") as stream:
        stream.write("zz\n")
    (copy / "text_settings.json").unlink()
    with pytest.raises(UserError, match="for LiteRT: .*vocab_size"):
        Predictor(copy, engine="litert")


def test_what_the_engine_cannot_do_is_said_first(
    exported,
    pretrained,
    tmp_path,
    monkeypatch,
):
    def refused(match, *flags, mode="similarity"):
        with pytest.raises(UserError, match=match):
            predict.main([mode, "今天", "明天", *map(str, flags)])

    fp32 = exported / "model_fp32.tflite"
    refused("leave out", "--engine", "litert", mode="fill-mask")
    refused("say --engine litert", "--model", fp32)
    refused(
        "is of fp32: say --engine litert$",
        *("--engine", "litert-int8", "--model", fp32),
    )
    refused("does not exist", "--engine", "litert", "--model", "no.tflite")
    refused(
        "this one is pre-trained",
        *("--engine", "litert", "--model", fp32),
        mode="tag",
    )
    with pytest.raises(UserError, match="`engine` must be one of"):
        Predictor(pretrained, engine="onnx")
    saved = tmp_path / "encoder"
    saved.mkdir()
    (saved / "saved_model.pb").write_bytes(b"")
    refused("holds a SavedModel", "--engine", "litert", "--model", saved)
    with pytest.raises(UserError, match="hub encoder"):
        hub_tuned(tmp_path)
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    refused(r"needs ai_edge_litert: .*\[litert\]", "--engine", "litert-int8")


def hub_tuned(tmp_path):
    folder = tmp_path / "tuned" / "model"
    (folder / "hub_encoder").mkdir(parents=True)
    (folder / "task.json").write_text('{"kind": "classification"}')
    export.main(
        ["--checkpoint", str(folder), "--what", "litert"]
        + ["--export_dir", str(tmp_path / "out")]
    )


def test_a_file_for_phones_is_told_apart(pretrained, tmp_path):
    import phone_model

    phone_model.write(tmp_path, 16)
    (path,) = tmp_path.glob("*.tflite")
    with pytest.raises(UserError, match="of another kind, such as those for"):
        Predictor(path, engine="litert")


def test_a_file_of_an_older_version_is_told_apart(exported, tmp_path):
    path = tmp_path / "model.tflite"
    shutil.copy(exported / "model_fp32.tflite", path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    metadata = json.loads(parts["metadata.json"]) | {"rows": 1}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            if name == "metadata.json":
                content = json.dumps(metadata).encode()
            archive.writestr(name, content)
    with pytest.raises(UserError, match="by an older version: write it again"):
        litert_file.read(path)


def test_a_file_says_what_it_is_tuned_for(tuned, tmp_path):
    export.main(
        ["--checkpoint", str(tuned("lcqmc")), "--what", "litert"]
        + ["--export_dir", str(tmp_path)]
    )
    path = str(tmp_path / WHERE)
    flags = ["--engine", "litert", "--model", path]
    with pytest.raises(UserError, match="this model takes two texts"):
        predict.main(["classify", "今天", *flags])
    with pytest.raises(UserError, match="take `classify`"):
        predict.main(["tag", "今天", *flags])


def test_other_answers_are_not_written(pretrained, tmp_path, monkeypatch):
    monkeypatch.setattr(litert_part, "TOLERANCE", 0.0)
    with pytest.raises(UserError, match="answers otherwise than TensorFlow"):
        export.main(
            ["--checkpoint", str(pretrained), "--what", "litert"]
            + ["--export_dir", str(tmp_path / "out")]
        )
    assert not (tmp_path / "out" / "litert" / "1").exists()


def test_rows_are_computed_by_xnnpack_whatever_their_length(exported):
    """The delegate takes the network over again after each change."""
    file = litert_file.read(exported / "model_fp32.tflite")
    model = litert.RowModel(file)
    network = model._of_all_threads
    interpreter = network._runners[litert_file.TOKENS]._interpreter
    for length in (8, 64, 24):
        model.vectors([Packed([2] * length, [0] * length)], "mean")
        taken = [node["op_name"] for node in interpreter._get_ops_details()]
        assert taken.count("DELEGATE") >= 1
        products = [n for n in taken if n in ("FULLY_CONNECTED", "SOFTMAX")]
        assert products  # the list keeps what the delegate took over


def test_texts_are_answered_by_the_last_layer_at_their_beginnings(
    tuned, pretrained
):
    """The same as from all tokens, at less: K rows where others have N."""
    predictor = Predictor(tuned("lcqmc"), engine="litert")
    network = predictor._tuned.loaded.encoder._of_all_threads
    assert set(network._runners) == {litert_file.TOKENS, litert_file.TEXTS}
    for several in (1, 2, 3, 4, 9):
        texts = [Packed([2, 7 + i, 3], [0, 0, 0]) for i in range(several)]
        inputs = litert._inputs(litert._Row.of(texts), texts)
        short, whole = (
            network(signature, inputs)
            for signature in (litert_file.TEXTS, litert_file.TOKENS)
        )
        # Where texts begin, up to a power of two, so that lengths are few.
        many = {1: 1, 2: 2, 3: 4, 4: 4, 9: 16}[several]
        for name in ("pooled_output", "task_logits"):
            assert len(short[name]) == many
            np.testing.assert_allclose(short[name], whole[name], atol=1e-6)
    # It costs memory: where no head reads texts there is none.
    for source in (pretrained, tuned("ner")):
        model = Predictor(source, engine="litert")._vectors._encoder
        assert set(model._of_all_threads._runners) == {litert_file.TOKENS}


def test_threads_that_share_a_model_get_their_own_answers(exported):
    file = litert_file.read(exported / "model_fp32.tflite")
    model = litert.RowModel(file, threads=1)
    texts = [Packed([2, 5 + i, 3], [0, 0, 0]) for i in range(40)] * 8

    def vector(text):
        return model.vectors([text], "cls")

    alone = [vector(text) for text in texts]
    with ThreadPoolExecutor(8) as pool:
        np.testing.assert_array_equal(list(pool.map(vector, texts)), alone)


def rows_of(several, length=litert.ROW_TOKENS):
    """Returns texts that fill so many rows."""
    return [
        Packed([2, *[5 + i % 40] * (length - 2), 3], [0] * length)
        for i in range(several)
    ]


def test_many_rows_are_shared_by_threads_with_a_network_each(exported):
    file = litert_file.read(exported / "model_fp32.tflite")
    alone = litert.RowModel(file, threads=1)
    model = litert.RowModel(file, threads=3)
    # They are opened by the first call that has two rows for each.
    for rows, networks in ((5, 0), (6, 3), (40, 3)):
        texts = [*rows_of(rows - 1), *rows_of(9, 7)]  # nine short ones in one
        for pooling in POOLINGS:
            np.testing.assert_allclose(
                model.vectors(texts, pooling),
                alone.vectors(texts, pooling),
                atol=1e-6,
            )
        assert len(model._of_one_thread) == networks
    assert not alone._of_one_thread


def test_few_rows_and_wide_models_have_one_network(exported):
    file = litert_file.read(exported / "model_fp32.tflite")
    assert file.hidden_size < litert.NARROW
    model = litert.RowModel(file, threads=2)
    wide = litert.RowModel(file._replace(hidden_size=litert.NARROW), threads=2)
    for several, network in ((3, model), (8, wide)):
        network.vectors(rows_of(several), "mean")
        assert network._of_one_thread == []
    model.vectors(rows_of(4), "mean")
    assert len(model._of_one_thread) == 2


def test_many_rows_have_logits_of_every_kind(tuned, cache):
    for name, per_token in (("lcqmc", False), ("ner", True)):
        folder = tuned(name)
        Predictor(folder, engine="litert")  # makes the file
        kept = cache / "litert" / litert_cache.content_of(folder, None)
        file = litert_file.read(kept / WHERE)
        one, two = (litert.RowModel(file, threads=n) for n in (1, 2))
        texts = [*rows_of(7), *rows_of(11, 5)]
        expected = one.logits(texts, per_token=per_token)
        found = two.logits(texts, per_token=per_token)
        assert len(two._of_one_thread) == 2
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.shape == theirs.shape
            np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_callers_with_many_rows_get_their_own_answers(exported):
    file = litert_file.read(exported / "model_fp32.tflite")
    parts = [rows_of(9, 60 + i % 5) for i in range(12)]
    alone = litert.RowModel(file, threads=1)
    expected = [alone.vectors(part, "mean") for part in parts]
    model = litert.RowModel(file, threads=2)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda part: model.vectors(part, "mean"), parts))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert len(model._of_one_thread) == 2


def test_a_file_that_is_replaced_answers_as_before(exported, tmp_path):
    path = tmp_path / "model.tflite"
    shutil.copy(exported / "model_fp32.tflite", path)
    model = litert.RowModel(litert_file.read(path), threads=2)
    few, many = rows_of(1), rows_of(12)
    expected = model.vectors(few, "mean")
    path.unlink()
    path.write_bytes(b"another")
    found = model.vectors(many, "mean")
    assert len(model._of_one_thread) == 2
    np.testing.assert_allclose(found[:1], expected, atol=1e-6)


def test_a_fault_in_one_row_reaches_the_caller_and_ends_the_others(exported):
    file = litert_file.read(exported / "model_fp32.tflite")
    model = litert.RowModel(file, threads=2)
    rows, done = rows_of(4000), []

    def faulty(row, output):
        done.append(row)
        if len(done) == 5:
            raise ZeroDivisionError
        return output[:1]

    with pytest.raises(ZeroDivisionError):
        model._run(rows, "sequence_output", faulty, of_texts=False)
    assert len(done) < len(rows)


def test_who_interrupts_waits_for_no_further_row(exported):
    file = litert_file.read(exported / "model_fp32.tflite")
    model = litert.RowModel(file, threads=2)
    rows, done = rows_of(4000), []

    def interrupted(row, output):
        done.append(row)
        if len(done) == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return output[:1]

    # What a shell starts with & is born deaf to Ctrl-C.
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            model._run(rows, "sequence_output", interrupted, of_texts=False)
    finally:
        signal.signal(signal.SIGINT, usual)
    assert len(done) < len(rows)
    assert np.isfinite(model.vectors(rows[:9], "mean")).all()


@pytest.mark.parametrize(("layers", "signatures"), [(6, 1), (7, 0)])
def test_deep_models_keep_their_weights_once(tiny_config, layers, signatures):
    encoder = AlbertEncoder(tiny_config.replace(num_hidden_layers=layers))
    head = TaskHead(2, tiny_config.hidden_size)
    others = litert_part.row_functions(encoder, head, base.CLASSIFICATION)[1]
    assert len(others) == signatures
