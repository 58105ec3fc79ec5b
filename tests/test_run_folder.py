"""What a run is: written beside it, compared at every start, owned by one."""

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import damage
import pytest
import task_samples as samples
from small_records import TOKENS, example, write_set

from albert_tf2 import (
    AlbertConfig,
    UserError,
    Vocabulary,
    finetune,
    paths,
    plot,
    pretrain,
)
from albert_tf2.pretraining.run import Run, evaluate, train_and_evaluate
from albert_tf2.recipes import FinetuneRecipe, PretrainRecipe
from albert_tf2.records.record_set import open_records
from albert_tf2.tasks import registry
from albert_tf2.training import identity, run_folder
from albert_tf2.training.identity import (
    FINETUNING,
    PRETRAINING,
    SEVERAL_SEEDS,
    Fingerprint,
    Identity,
)

pytestmark = pytest.mark.usefixtures("warm_python")

ROOT = Path(__file__).resolve().parents[1]
ROWS = ("metrics.jsonl", "evaluation.jsonl")
MODEL = AlbertConfig(
    vocab_size=200,
    embedding_size=8,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=32,
)


# --- the table


@pytest.mark.parametrize("kind", [PRETRAINING, FINETUNING])
def test_every_setting_has_a_rule_and_every_rule_a_setting(kind):
    """A new field is decided about where it is added, not forgotten."""
    rules, recipe = identity.RULES[kind], identity.RECIPES[kind]
    fields = {field.name for field in dataclasses.fields(recipe)}
    assert fields <= set(rules), fields - set(rules)
    own = {"vocabulary", "init_checkpoint", "devices", "version", "train"}
    own |= {"eval"} if kind == PRETRAINING else {"dev", "test"}
    own |= {field.name for field in dataclasses.fields(AlbertConfig)}
    names = {name.partition("=")[0] for name in rules}
    assert names <= fields | own, names - fields - own
    for name, rule in rules.items():
        assert bool(rule.reason) == (rule.verdict == identity.REFUSED), name


def test_the_guide_has_the_table():
    text = (ROOT / "docs" / "runs.md").read_text("utf-8")
    rows = [line.split("|") for line in text.splitlines() if "`" in line]
    for rules in identity.RULES.values():
        for name, rule in rules.items():
            spelled = [f"`{part}`" for part in name.split("=")]
            verdicts = [
                cells[2].strip()
                for cells in rows
                if len(cells) > 3 and all(s in cells[1] for s in spelled)
            ]
            assert (
                rule.verdict == identity.RESOLVED or rule.verdict in verdicts
            ), name


def pretraining(**changes):
    """An identity, with fields of any of its parts changed."""
    fields = {
        "kind": PRETRAINING,
        "recipe": PretrainRecipe(),
        "data": {
            "train": Fingerprint("9 records", "aa" * 32),
            "eval": Fingerprint("2 records", "bb" * 32),
        },
        "vocabulary": Vocabulary(TOKENS),
        "model": MODEL,
    }
    return changed(Identity(**fields), changes)


def finetuning(**changes):
    fields = {
        "kind": FINETUNING,
        "recipe": FinetuneRecipe(),
        "data": {
            "train": Fingerprint("train.txt", "aa" * 32),
            "dev": Fingerprint("dev.txt", "bb" * 32),
            "test": Fingerprint("test.txt", "cc" * 32),
        },
        "vocabulary": Vocabulary(TOKENS),
        "model": MODEL,
        "task": {"task": "lcqmc", "labels": ["0", "1"], "pairs": True},
        "init_checkpoint": Fingerprint("albert_tiny_zh", "dd" * 32),
    }
    return changed(Identity(**fields), changes)


def changed(what, changes):
    for name, value in changes.items():
        if name in {f.name for f in dataclasses.fields(what)}:
            what = dataclasses.replace(what, **{name: value})
        elif name in what.data:
            what = dataclasses.replace(what, data={**what.data, name: value})
        elif name in (what.task or {}):
            what = dataclasses.replace(what, task={**what.task, name: value})
        elif hasattr(what.recipe, name):
            recipe = dataclasses.replace(what.recipe, **{name: value})
            what = dataclasses.replace(what, recipe=recipe)
        else:
            what = dataclasses.replace(
                what, model=what.model.replace(**{name: value})
            )
    return what


def started(workdir, what, *, finished=False):
    """Leaves what a run leaves: a description and something to go on from."""
    run_folder.describe(workdir, what, say=len)
    (workdir / "checkpoints").mkdir()
    (workdir / "checkpoints" / "ckpt-5.index").write_bytes(b"")
    if finished:
        (workdir / "results.json").write_text("{}")


OTHER = Fingerprint("other", "ee" * 32)
REFUSED = [
    (pretraining, "seed", 1, "which rows come next"),
    (pretraining, "global_batch_size", 64, "which rows come next"),
    (pretraining, "shuffle_buffer", 5, "which rows come next"),
    (pretraining, "optimizer", "adamw", "state is of another kind"),
    (pretraining, "label_style", "albert_zh", "labels would mean"),
    (pretraining, "precision", "mixed_float16", "have no loss scale"),
    (pretraining, "num_hidden_layers", 5, "run of another model"),
    (pretraining, "num_attention_heads", 4, "run of another model"),
    (pretraining, "ln_type", "preln", "run of another model"),
    (pretraining, "train", OTHER, "run on other data"),
    (pretraining, "init_checkpoint", OTHER, "began from other weights"),
    (finetuning, "max_seq_length", 64, "texts are cut otherwise"),
    (finetuning, "max_train_rows", 5, "which rows come next"),
    (finetuning, "labels", ["0", "2"], "run of another task"),
    (finetuning, "task", {"task": "afqmc"}, "run of another task"),
    (finetuning, "train", OTHER, "run on other data"),
    (finetuning, "dev", OTHER, "chosen by other rows"),
    (finetuning, "init_checkpoint", OTHER, "began from other weights"),
]


@pytest.mark.parametrize(
    "make, name, value, reason", REFUSED, ids=lambda value: str(value)[:20]
)
def test_what_makes_it_another_run_is_refused_by_name(
    tmp_path, make, name, value, reason
):
    started(tmp_path, make())
    written = (tmp_path / "run.json").read_text()
    with pytest.raises(UserError) as error:
        run_folder.check(tmp_path, make(**{name: value}))
    text = str(error.value)
    assert f"holds a run with another `{name}` (" in text and reason in text
    assert ", now " in text and "choose another --workdir" in text
    assert (tmp_path / "run.json").read_text() == written


TOLD = [
    (pretraining, "train_steps", 9, "`train_steps` was 125000"),
    (pretraining, "learning_rate", 0.5, "and is 0.5 from now on"),
    (pretraining, "precision", "mixed_bfloat16", "`precision`"),
    (pretraining, "log_every", 7, "`log_every` was 100"),
    (pretraining, "hidden_dropout_prob", 0.1, "`hidden_dropout_prob` was 0.0"),
    (pretraining, "eval", OTHER, "`eval` was 2 records, SHA-256 bbbb"),
    (pretraining, "devices", "TPU", "`devices` was '' in"),
    (finetuning, "learning_rate", 0.5, "`learning_rate`"),
    (finetuning, "test", OTHER, "is other, SHA-256 eeee"),
    (finetuning, "num_train_epochs", 9.0, "`num_train_epochs` was 3.0"),
]


@pytest.mark.parametrize(
    "make, name, value, note", TOLD, ids=lambda value: str(value)[:20]
)
def test_what_may_change_is_told_with_both_values(
    tmp_path, make, name, value, note
):
    started(tmp_path, make())
    now = make(**{name: value})
    if name == "hidden_dropout_prob":  # the recipe's, and so the model's
        now = dataclasses.replace(now, model=MODEL.replace(**{name: value}))
    said = []
    run_folder.describe(
        tmp_path, now, run_folder.check(tmp_path, now), say=said.append
    )
    assert len(said) == 1 and note in said[0], said
    assert run_folder.check(tmp_path, now) == []  # told once


def test_a_finished_run_is_not_what_other_settings_would_have_given(tmp_path):
    started(tmp_path, finetuning(), finished=True)
    for name, value in (("learning_rate", 0.5), ("test", OTHER)):
        now = finetuning(**{name: value})
        assert run_folder.check(tmp_path, now)
        with pytest.raises(UserError, match=f"`{name}`.*: it is finished;"):
            run_folder.check(tmp_path, now, finished=True)
    for name, value in (("log_every", 5), ("devices", "TPU")):
        now = finetuning(**{name: value})
        assert run_folder.check(tmp_path, now, finished=True)


def test_spellings_of_one_value_are_the_same(tmp_path):
    started(tmp_path, finetuning(num_train_epochs=3, labels=("0", "1")))
    assert not run_folder.check(tmp_path, finetuning(num_train_epochs=3.0))


def test_all_that_changed_is_named(tmp_path):
    started(tmp_path, pretraining())
    with pytest.raises(UserError) as error:
        run_folder.check(
            tmp_path,
            pretraining(seed=1, train=OTHER, num_hidden_layers=3, log_every=9),
        )
    text = str(error.value)
    assert "`seed` (20191001, now 1)" in text
    assert "(`num_hidden_layers`, `train` changed, too)" in text


def test_a_vocabulary_is_refused_by_its_first_other_id(tmp_path):
    started(tmp_path, pretraining())
    other = Vocabulary([*TOKENS[:50], TOKENS[51], TOKENS[50], *TOKENS[52:]])
    now = pretraining(vocabulary=other)
    with pytest.raises(UserError, match="`vocabulary` .*the ids would mean"):
        run_folder.check(tmp_path, now)
    (tmp_path / "vocab.txt").write_bytes(Vocabulary(TOKENS).to_bytes())
    with pytest.raises(UserError) as error:
        run_folder.check(tmp_path, now)
    assert (
        f"id 50 is {TOKENS[51]!r} in the data and {TOKENS[50]!r} in the run"
        in str(error.value)
    )


def test_a_run_that_never_got_anywhere_may_become_any_other(tmp_path):
    """A first command that failed must not bind the second one."""
    run_folder.describe(tmp_path, pretraining(), say=len)
    now = pretraining(seed=3, train=OTHER, num_hidden_layers=7)
    assert run_folder.check(tmp_path, now) == []
    run_folder.describe(tmp_path, now, say=len)
    assert run_folder.read(tmp_path)["model"]["num_hidden_layers"] == 7


def test_where_a_run_began_is_kept_when_it_is_not_named_again(tmp_path):
    started(tmp_path, pretraining(init_checkpoint=OTHER))
    now = pretraining()
    assert run_folder.check(tmp_path, now) == []
    run_folder.describe(tmp_path, now, say=len)
    kept = run_folder.read(tmp_path)["init_checkpoint"]
    assert kept == {"what": "other", "sha256": "ee" * 32}
    lost = pretraining(init_checkpoint=Fingerprint("x is gone", None))
    (change,) = run_folder.check(tmp_path, lost)
    assert "cannot be compared with the run so far: x is gone" in change.note()
    run_folder.describe(tmp_path, lost, say=len)
    assert run_folder.read(tmp_path)["init_checkpoint"] == kept


def test_checkpoints_without_a_description_are_said(tmp_path):
    started(tmp_path, pretraining())
    (tmp_path / "run.json").unlink()
    assert run_folder.check(tmp_path, pretraining(seed=1)) == []
    said = []
    run_folder.describe(tmp_path, pretraining(), say=said.append)
    assert "has checkpoints and no run.json" in said[0]


def test_one_schema_for_every_kind(tmp_path):
    for number, what in enumerate(
        (pretraining(), finetuning(), finetuning(kind=SEVERAL_SEEDS))
    ):
        run_folder.describe(tmp_path / str(number), what, say=len)
        found = json.loads((tmp_path / str(number) / "run.json").read_text())
        assert set(found) == {
            *("kind", "version", "devices", "model", "vocabulary"),
            *("data", "task", "init_checkpoint"),
        }
        assert found["vocabulary"] == {
            "what": "200 tokens",
            "sha256": Vocabulary(TOKENS).sha256,
        }
        # What lies there is a recipe like any other.
        assert run_folder.read_recipe(tmp_path / str(number), what.kind) == (
            what.recipe
        )


def test_folders_of_another_kind_are_named(tmp_path):
    run_folder.describe(tmp_path / "f", finetuning(), say=len)
    run_folder.describe(tmp_path / "p", pretraining(), say=len)
    run_folder.describe(tmp_path / "s", finetuning(kind=SEVERAL_SEEDS), say=len)
    with pytest.raises(UserError, match="f holds a fine-tuning run .*choose"):
        run_folder.check(tmp_path / "f", pretraining())
    with pytest.raises(UserError, match="p holds a pre-training run .*choose"):
        run_folder.check(tmp_path / "p", finetuning())
    with pytest.raises(UserError, match="s holds .*several seeds .*choose"):
        run_folder.check(tmp_path / "s", finetuning())
    with pytest.raises(UserError, match="f holds a fine-tuning run"):
        evaluate(tmp_path / "f", tmp_path, "one_device")
    with pytest.raises(UserError, match="s holds .*several seeds"):
        plot.main([str(tmp_path / "s")])
    with pytest.raises(UserError, match="is not a folder"):
        plot.main([str(tmp_path / "nowhere")])


def test_a_recipe_of_another_version_is_one_sentence(tmp_path):
    run_folder.describe(tmp_path, pretraining(), say=len)
    recipe_file = tmp_path / "recipe.json"
    values = json.loads(recipe_file.read_text())
    recipe_file.write_text(json.dumps(values | {"gravity": 9.81}))
    run_file = tmp_path / "run.json"
    run_file.write_text(
        json.dumps(json.loads(run_file.read_text()) | {"version": "9.9"})
    )
    with pytest.raises(UserError) as error:
        pretrain.main(
            ["--evaluate", "--data_dir", "x", "--workdir", str(tmp_path)]
        )
    assert "unknown key `gravity`" in str(error.value)
    assert "was started by version 9.9 of the program" in str(error.value)
    recipe_file.unlink()
    with pytest.raises(UserError, match="no pre-training run: it has no rec"):
        evaluate(tmp_path, "x", "one_device")
    for kind in ('"hovering"', "[]", "null"):
        (tmp_path / "run.json").write_text(f'{{"kind": {kind}}}')
        with pytest.raises(UserError, match="`kind` must be one of pre-trai"):
            evaluate(tmp_path, "x", "one_device")


def test_records_are_known_by_their_content(tmp_path):
    write_set(tmp_path / "a", [5, 4], held_out=3)
    first = open_records(str(tmp_path / "a"))
    shutil.copytree(tmp_path / "a", tmp_path / "moved")
    assert open_records(str(tmp_path / "moved")).sha256 == first.sha256
    assert open_records(str(tmp_path / "a"), "eval").sha256 != first.sha256
    write_set(tmp_path / "b", [5, 4], held_out=3, seed=1)
    assert open_records(str(tmp_path / "b")).sha256 != first.sha256
    # By the manifest's sums, where it has them: nothing is read.
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    for number, shard in enumerate(manifest["shards"]):
        shard["sha256"] = f"sum {number}"
    (tmp_path / "a" / "manifest.json").write_text(json.dumps(manifest))
    assert open_records(str(tmp_path / "a")).sums == ("sum 0", "sum 1")


def test_records_of_other_programs_are_known_by_their_checksums(tmp_path):

    def rows_of_one_length(rng):
        ids = rng.integers(5, 100, 32)  # a byte for each
        return example({"input_ids": ids, "masked_lm_positions": [1]}), ids

    for name, seed in (("a", 0), ("b", 1)):
        write_set(tmp_path / name, [4], kind=rows_of_one_length, seed=seed)
        (tmp_path / name / "manifest.json").unlink()
    shutil.copytree(tmp_path / "a", tmp_path / "moved")
    first, other, moved = (
        open_records(str(tmp_path / name)) for name in ("a", "b", "moved")
    )
    assert first.counts == other.counts == (4,)
    assert first.sha256 == moved.sha256 != other.sha256
    shard = next((tmp_path / "a").glob("train-0*"))
    shard.write_bytes(shard.read_bytes()[:-3])
    with pytest.raises(UserError, match="is cut off .*copy it again"):
        open_records(str(tmp_path / "a"))


# --- whole runs


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    write_set(folder, [9, 8], held_out=3)
    return folder


def recipe(tmp_path, **changes):
    MODEL.to_json(tmp_path / "albert_config.json")
    settings = {
        "model": str(tmp_path / "albert_config.json"),
        "train_steps": 1,
        "optimizer": "adamw",
        "global_batch_size": 4,
        "max_seq_length": 32,
        "warmup_steps": 1,
        "checkpoint_every": 1,
        "log_every": 1,
        "shuffle_buffer": 16,
    }
    return PretrainRecipe(**(settings | changes))


@pytest.fixture(scope="module")
def whole_run(records, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    train(recipe(folder), records, folder / "run")
    return folder


def train(a_recipe, records, workdir, **options):
    return train_and_evaluate(
        a_recipe, records, workdir, "one_device", progress=False, **options
    )


def contents(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize(
    "count",
    [
        8,
        pytest.param(
            int(os.environ.get("DAMAGE_TRIES", damage.HEAVY_TRIES)),
            marks=pytest.mark.large,
            id="large",
        ),
    ],
)
def test_damage_is_told_in_a_sentence_or_mended(
    whole_run, records, count, tmp_path
):
    """Of the run's files and its records: see `damage`."""
    shutil.copytree(whole_run / "run", tmp_path / "both" / "run")
    shutil.copytree(records, tmp_path / "both" / "records")
    damage.survives("workdir", tmp_path / "both", count)


@pytest.mark.parametrize("section", ["model", "task", "data"])
def test_a_section_that_is_no_object_is_told(section, tmp_path):
    paths.write_json(
        tmp_path / "run.json", {"kind": PRETRAINING, section: "\x00"}
    )
    with pytest.raises(UserError, match=f"run.json: `{section}` must hold"):
        run_folder.read(tmp_path)


def test_pretraining_says_what_it_is_and_refuses_what_it_is_not(
    whole_run, records, tmp_path, capsys
):
    run, asked = whole_run / "run", recipe(whole_run)
    found = run_folder.read(run)
    assert found["kind"] == PRETRAINING and found["task"] is None
    assert found["data"]["train"] == {
        "what": "17 records",
        "sha256": open_records(str(records)).sha256,
    }
    assert found["devices"] == "OneDeviceStrategy, replicas: 1"
    before = contents(run)

    def refused(match, data=records, **changes):
        with pytest.raises(UserError, match=match):
            train(dataclasses.replace(asked, **changes), data, run)
        assert contents(run) == before

    refused("another `seed`", seed=3)
    permuted = tmp_path / "permuted"
    shutil.copytree(records, permuted)
    (permuted / "vocab.txt").write_text(
        "".join(f"{t}\n" for t in [*TOKENS[:-2], TOKENS[-1], TOKENS[-2]]),
        "utf-8",
    )
    refused("id 198 is", permuted)
    write_set(tmp_path / "other", [9, 8], held_out=3, seed=5)
    refused("another `train`.*run on other data", tmp_path / "other")
    with pytest.raises(UserError, match="id 198 is .*records of the run's"):
        evaluate(run, permuted, "one_device")
    # The same records elsewhere, and something to tell.
    shutil.copytree(records, tmp_path / "moved")
    capsys.readouterr()
    train(dataclasses.replace(asked, train_steps=2), tmp_path / "moved", run)
    assert capsys.readouterr().out.count("from now on") == 1


def test_a_moved_run_is_evaluated_without_the_file_of_its_model(
    whole_run, records, tmp_path
):
    shutil.copytree(whole_run / "run", tmp_path / "run")
    recipe_file = tmp_path / "run" / "recipe.json"
    values = json.loads(recipe_file.read_text())
    recipe_file.write_text(json.dumps(values | {"model": "gone.json"}))
    assert evaluate(tmp_path / "run", records, "one_device")["step"] >= 1


def test_a_first_command_that_fails_leaves_nothing(records, tmp_path):
    wrong = recipe(tmp_path, max_seq_length=16)
    with pytest.raises(UserError, match="max_seq_length 16"):
        train(wrong, records, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()  # somebody's own folder stays
    with pytest.raises(UserError, match="max_seq_length 16"):
        train(wrong, records, tmp_path / "run")
    assert (tmp_path / "run").is_dir() and not contents(tmp_path / "run")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="file is a file: name a folder"):
        train(recipe(tmp_path), records, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_bucket_holds_a_description_too():
    workdir = "ram://identity/run"
    run_folder.describe(workdir, pretraining(), say=len)
    assert not run_folder.has_state(workdir)
    paths.write_json(f"{workdir}/checkpoints/ckpt-1.index", {})
    assert run_folder.has_state(workdir)
    assert run_folder.read(workdir)["kind"] == PRETRAINING
    with pytest.raises(UserError, match="run holds a pre-training run"):
        run_folder.check(workdir, finetuning())
    with pytest.raises(UserError, match="another `seed`"):
        run_folder.check(workdir, pretraining(seed=1))


def test_who_lost_the_folder_writes_no_more(records, tmp_path):
    """As on a bucket, where a machine that was frozen is taken for dead."""
    workdir = tmp_path / "run"
    run = Run(recipe(tmp_path), records, workdir, "one_device")
    with run_folder.owned(workdir) as owner:
        run.start(None)
        owner.lost.set()
        with pytest.raises(UserError, match="was taken over by another run"):
            run.train((), owner)
        assert not run_folder.has_state(workdir)
        assert not any(contents(workdir).get(Path(n)) for n in ROWS)
    with run_folder.owned(workdir, worker=1) as owner:
        assert owner is None


def test_one_owner_also_after_a_kill(records, tmp_path, warm_python):
    """Two at once: the second one is refused. Killed: nothing is in the way."""
    long = recipe(tmp_path, train_steps=100_000)
    arguments = [
        *(sys.executable, "-m", "albert_tf2.pretrain"),
        *("--strategy", "one_device"),
        *("--data_dir", str(records), "--workdir", str(tmp_path / "run")),
        *(
            f"--set={name}={value}"
            for name, value in vars(long).items()
            if value is not None
        ),
    ]
    process = subprocess.Popen(
        arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            if (tmp_path / "run" / "metrics.jsonl").exists():
                break
            time.sleep(0.05)
        assert process.poll() is None
        with pytest.raises(UserError, match="is in use by another run"):
            train(long, records, tmp_path / "run")
        # Reading needs no lock.
        run_folder.expect(tmp_path / "run", PRETRAINING)
    finally:
        warm_python.kill(process)
        process.wait()
    short = dataclasses.replace(long, train_steps=1)
    assert train(short, records, tmp_path / "run").step >= 0


# --- fine-tuning


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    from albert_tf2 import save_pretrained
    from albert_tf2.model.albert import AlbertPretrainer

    folder = tmp_path_factory.mktemp("pretrained")
    vocab_file = samples.write_vocab(folder)
    model = AlbertPretrainer(samples.small_config(vocab_file))
    return save_pretrained(model, folder / "model", vocab_file=vocab_file)


def tune(data_dir, checkpoint, workdir, **changes):
    """Returns the results, and what was said."""
    settings = {"max_seq_length": 16, "max_train_steps": 1, "eval_every": 1}
    a_recipe = FinetuneRecipe(**settings | changes)
    task = registry.create("lcqmc")
    said = []
    data = finetune.read_data(task, data_dir, a_recipe, say=len)
    run = finetune.fine_tune
    if a_recipe.num_seeds > 1:
        run = finetune.fine_tune_seeds
    results = run(
        task,
        data,
        init_checkpoint=str(checkpoint),
        recipe=a_recipe,
        workdir=workdir,
        say=said.append,
    )
    return results, "\n".join(said)


@pytest.fixture(scope="module")
def tuned(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuned")
    samples.write_lcqmc(folder / "data")
    tune(folder / "data", checkpoint, folder / "run")
    return folder


def test_fine_tuning_says_what_it_is(tuned, checkpoint):
    found = run_folder.read(tuned / "run")
    sums = [paths.sha256(tuned / "data" / "train.txt")]
    assert found["kind"] == FINETUNING
    assert found["data"]["train"]["what"] == "train.txt"
    assert found["data"]["train"]["sha256"] == (
        hashlib.sha256("".join(sums).encode()).hexdigest()
    )
    assert set(found["data"]) == {"train", "dev", "test"}
    assert found["task"]["labels"] == ["0", "1"]
    assert found["model"]["hidden_size"] == 32
    assert found["vocabulary"]["sha256"] == (
        Vocabulary.load(checkpoint / "vocab.txt").sha256
    )
    assert str(checkpoint) in found["init_checkpoint"]["what"]


@pytest.mark.parametrize("finished", [True, False])
def test_results_of_other_data_are_not_given(
    tuned, checkpoint, tmp_path, finished
):
    shutil.copytree(tuned / "run", tmp_path / "run")
    if not finished:  # what a run leaves that was stopped
        (tmp_path / "run" / "results.json").unlink()
    other = samples.write_lcqmc(tmp_path / "other")
    lines = (other / "train.txt").read_text("utf-8").splitlines()
    (other / "train.txt").write_text("\n".join(lines[:-1]) + "\n", "utf-8")
    before = contents(tmp_path / "run")
    with pytest.raises(UserError) as error:
        tune(other, checkpoint, tmp_path / "run")
    assert "another `train` (train.txt, SHA-256 " in str(error.value)
    assert contents(tmp_path / "run") == before
    # The same files elsewhere are the same data, the same weights as well.
    shutil.copytree(tuned / "data", tmp_path / "moved")
    shutil.copytree(checkpoint, tmp_path / "checkpoint")
    results, said = tune(
        tmp_path / "moved", tmp_path / "checkpoint", tmp_path / "run"
    )
    assert ("is finished already" in said) == finished
    assert results["steps"] == 1


def test_rows_by_hand_are_known_by_what_they_are(tuned):
    data = finetune.read_data(
        registry.create("lcqmc"), tuned / "data", FinetuneRecipe(), say=len
    )
    first = finetune.Data(data.train, data.dev, [])
    again = finetune.Data(list(data.train), data.dev, [])
    other = finetune.Data(data.train[1:], data.dev, [])
    assert first.sources == again.sources and set(first.sources) == {
        "train",
        "dev",
    }
    assert first.sources["train"] != other.sources["train"]


def test_results_without_a_description_are_not_given(
    tuned, checkpoint, tmp_path
):
    shutil.copytree(tuned / "run", tmp_path / "run")
    (tmp_path / "run" / "run.json").unlink()
    with pytest.raises(UserError, match="has results and no run.json"):
        tune(tuned / "data", checkpoint, tmp_path / "run")


def test_other_weights_are_refused_and_lost_ones_not_needed(
    tuned, checkpoint, tmp_path
):
    other = tmp_path / "other"
    shutil.copytree(checkpoint, other)
    config = json.loads((other / "albert_config.json").read_text())
    # With shared layers the weights are the same, the model is not.
    (other / "albert_config.json").write_text(
        json.dumps(config | {"num_hidden_layers": 3})
    )
    with pytest.raises(UserError, match="began from other weights"):
        tune(tuned / "data", other, tuned / "run")
    _, said = tune(tuned / "data", tmp_path / "gone", tuned / "run")
    assert "is finished already" in said


def test_a_failed_first_command_does_not_bind_the_second(
    tuned, checkpoint, tmp_path
):
    for length in (128, 100):
        with pytest.raises(UserError, match="at most the model's 64"):
            tune(
                tuned / "data",
                checkpoint,
                tmp_path / "run",
                max_seq_length=length,
            )
        assert not (tmp_path / "run").exists()
    results, _ = tune(tuned / "data", checkpoint, tmp_path / "run")
    assert results["steps"] == 1


def test_kinds_of_runs_do_not_mix(tuned, whole_run, checkpoint, tmp_path):
    with pytest.raises(UserError, match="holds a pre-training run"):
        tune(tuned / "data", checkpoint, whole_run / "run")
    results, _ = tune(
        tuned / "data", checkpoint, tmp_path / "seeds", num_seeds=2, seed=1
    )
    assert len(results["runs"]) == 2
    assert run_folder.read(tmp_path / "seeds")["kind"] == SEVERAL_SEEDS
    with pytest.raises(UserError, match="runs of several seeds"):
        tune(tuned / "data", checkpoint, tmp_path / "seeds", seed=1)
    # One seed more is one run more; another rate is another run.
    with pytest.raises(UserError, match="another `learning_rate`"):
        tune(
            tuned / "data",
            checkpoint,
            tmp_path / "seeds",
            num_seeds=3,
            seed=1,
            learning_rate=0.5,
        )
    results, said = tune(
        tuned / "data", checkpoint, tmp_path / "seeds", num_seeds=3, seed=1
    )
    assert said.count("is finished already") == 2
    assert [run["seed"] for run in results["runs"]] == [1, 2, 3]


def test_the_answers_of_chid_are_data_too(tmp_path):
    samples.write_easy_chid(tmp_path)
    found = registry.create("chid").sources(tmp_path, "train")
    names = [paths.name(path) for path in found]
    assert names == ["train.json", "train_answer.json"]
