"""What can be damaged: a small whole sample of each kind, and its opener.

A sample is a folder, and an opener does with it what a command would do. All
of them are the commands' own doors: what a test opens here in another way
would prove nothing.
"""

import contextlib
import dataclasses
import functools
import io
import json
import os
import shutil
import tarfile
import zipfile
from pathlib import Path
from unittest import mock

import task_samples as samples

SAMPLE = Path(__file__).resolve().parents[1] / "data" / "sample"


def _quiet(*_) -> None:
    pass


# Task files: (task, what writes them).


def _table(end: str, delimiter: str):
    def write(folder: Path) -> None:
        rows = [
            ("text", "label"),
            *((a, "好" if c == "1" else "坏") for a, _, c in samples.PAIRS),
        ]
        for split in ("train", "dev", "test"):
            (folder / f"{split}{end}").write_text(
                "".join(delimiter.join(row) + "\n" for row in rows), "utf-8"
            )

    return write


def _objects(end: str):
    def write(folder: Path) -> None:
        rows = [
            {"text": a, "label": "好" if c == "1" else "坏"}
            for a, _, c in samples.PAIRS
        ]
        for split in ("train", "dev", "test"):
            path = folder / f"{split}{end}"
            if end == ".jsonl":
                samples.write_lines(path, rows)
            else:
                path.write_text(json.dumps(rows, ensure_ascii=False), "utf-8")

    return write


def _parquet(folder: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    columns = {
        "text": [a for a, _, _ in samples.PAIRS],
        "label": [c for _, _, c in samples.PAIRS],
    }
    for split in ("train", "dev"):
        pyarrow.parquet.write_table(
            pyarrow.table(columns), folder / f"{split}.parquet"
        )


def _bio(folder: Path) -> None:
    lines = [
        "小 B-PER",
        "明 I-PER",
        "踢 O",
        "球 O",
        "",
        "北 B-LOC",
        "京 I-LOC",
        "",
    ]
    for split in ("train", "dev"):
        (folder / f"{split}.txt").write_text("\n".join(lines * 3), "utf-8")


TASK_FILES = {
    "csv": ("classification", _table(".csv", ",")),
    "tsv": ("classification", _table(".tsv", "\t")),
    "json": ("classification", _objects(".json")),
    "jsonl": ("classification", _objects(".jsonl")),
    "parquet": ("classification", _parquet),
    "pairs": ("lcqmc", samples.write_lcqmc),
    "several_labels": ("multi_label", samples.write_reviews),
    "scores": ("regression", samples.write_scores),
    "vectors": ("sentence_vectors", samples.write_scores),
    "bio": ("ner", _bio),
    "spans": ("ner", samples.write_spans),
    "entities": ("cluener", samples.write_cluener),
    "squad": ("cmrc2018", samples.write_cmrc),
    "questions": ("qa", samples.write_own_questions),
    "choices": ("c3", samples.write_c3),
    "idioms": ("chid", samples.write_chid),
}


def _open_task(task: str, folder: Path) -> None:
    from albert_tf2 import finetune
    from albert_tf2.tasks import registry

    for on_error in ("fail", "skip"):
        recipe = finetune.read_recipe(task, None, [])
        finetune.read_data(
            registry.from_recipe(task, recipe),
            folder,
            recipe,
            on_error=on_error,
            say=_quiet,
        )


# Settings.


def _write_recipes(folder: Path) -> None:
    configs = SAMPLE.parents[1] / "configs"
    for name in ("pretrain_tiny", "finetune_lcqmc"):
        shutil.copy(configs / f"{name}.yaml", folder)
    (folder / "own.yaml").write_text(
        "labels: [好, 坏]\ncolumns: [text, label]\ndelimiter: ','\n", "utf-8"
    )


def _open_recipes(folder: Path) -> None:
    from albert_tf2.recipes import FinetuneRecipe, PretrainRecipe, load_recipe

    load_recipe(PretrainRecipe, folder / "pretrain_tiny.yaml").model_config()
    for name in ("finetune_lcqmc", "own"):
        load_recipe(FinetuneRecipe, folder / f"{name}.yaml")


def _write_config(folder: Path) -> None:
    vocab_file = samples.write_vocab(folder)
    for layout in ("brightmart", "google"):
        samples.small_config(vocab_file, layout=layout).to_json(
            folder / f"{layout}.json"
        )


def _open_config(folder: Path) -> None:
    from albert_tf2.config import load_model_config
    from albert_tf2.text.tokenization import Tokenizer

    for name in ("brightmart", "google"):
        load_model_config(str(folder / f"{name}.json"))
    Tokenizer(folder / "vocab.txt").tokenize("今天天气很好")


# Texts.


def _write_corpus(folder: Path) -> None:
    import gzip

    text = (SAMPLE / "corpus" / "stories_dialogue_howto.txt").read_text("utf-8")
    text = text[:3000]
    lines = [line for line in text.split("\n") if line][:30]
    (folder / "plain.txt").write_text(text, "utf-8")
    (folder / "packed.txt.gz").write_bytes(gzip.compress(text.encode()))
    (folder / "table.csv").write_text(
        "id,text\n" + "".join(f'{n},"{t}"\n' for n, t in enumerate(lines)),
        "utf-8",
    )
    samples.write_lines(folder / "rows.jsonl", [{"text": t} for t in lines])


def _open_corpus(folder: Path) -> None:
    from albert_tf2.data import vocabulary

    for name in sorted(os.listdir(folder)):
        with contextlib.redirect_stdout(io.StringIO()):
            vocabulary.main(
                ["--input_file", str(folder / name), "--output"]
                + [str(folder / "made.vocab"), "--vocab_size", "300"]
                + (["--text_field", "text"] if name[0] in "tr" else [])
            )


def _write_inputs(folder: Path) -> None:
    samples.write_lines(
        folder / "rows.jsonl",
        [
            {"id": n, "text_a": a, "text_b": b}
            for n, (a, b, _) in enumerate(samples.PAIRS)
        ],
    )
    (folder / "rows.txt").write_text(
        "".join(f"{a}\t{b}\n" for a, b, _ in samples.PAIRS), "utf-8"
    )
    (folder / "terms.txt").write_text("花呗 3 n\n天气\n", "utf-8")


def _open_inputs(folder: Path) -> None:
    from albert_tf2.data import terms
    from albert_tf2.prediction import input_files

    for name in ("rows.jsonl", "rows.txt"):
        for pairs in (True, None):
            input_files.from_file(str(folder / name), pairs)
    terms.read_terms(str(folder / "terms.txt"))


# Archives.


def _write_archives(folder: Path) -> None:
    files = {"m/albert_config.json": b"{}", "m/vocab.txt": b"[PAD]\n" * 99}
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in files.items():
            opened.writestr(name, content)
    for name, mode in (("b.tar.gz", "w:gz"), ("c.tar", "w:")):
        with tarfile.open(folder / name, mode) as opened:
            for member, content in files.items():
                info = tarfile.TarInfo(member)
                info.size = len(content)
                opened.addfile(info, io.BytesIO(content))


def _open_archives(folder: Path) -> None:
    from albert_tf2.checkpoints import archives
    from albert_tf2.errors import UserError

    wrong = None
    for name in ("a.zip", "b.tar.gz", "c.tar"):
        try:
            archives.unpack(folder / name, folder / f"{name}-unpacked")
        except UserError as error:
            wrong = error
            left = folder / f"{name}-unpacked"
            assert not left.exists(), "half unpacked"
    if wrong:
        raise wrong


# What a build leaves when it is killed, and arrays.


def _write_arrays(folder: Path) -> None:
    import numpy as np

    numbers = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.save(folder / "vectors.npy", numbers)
    np.savez(folder / "whitening.npz", mean=numbers[0, :3], kernel=numbers)


def _open_arrays(folder: Path) -> None:
    from albert_tf2.predict import read_vectors
    from albert_tf2.prediction.similarity import Whitening

    Whitening.load(folder / "whitening.npz")
    read_vectors(str(folder / "vectors.npy"), 3, "texts.txt")


def _build(folder: Path) -> dict:
    from albert_tf2.data import build_pretraining_data as builder
    from albert_tf2.data import workers

    flags = builder.argument_parser(builder.__doc__, builder.PROG).parse_args(
        ["--input_file", str(folder / "corpus.txt"), "--max_seq_length", "32"]
        + ["--vocab_file", str(folder / "vocab.txt"), "--unit_bytes", "2000"]
        + ["--output_dir", str(folder / "out"), "--num_shards", "2"]
        + ["--segmenter", "none"]
    )
    return builder.build(builder.plan_of_flags(flags), workers.Workers(1))


def _write_parts(folder: Path) -> None:
    """A build that was killed before its manifest was written."""
    from albert_tf2.data import shards

    text = (SAMPLE / "corpus" / "stories_dialogue_howto.txt").read_text("utf-8")
    (folder / "corpus.txt").write_text(text[:6000], "utf-8")
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens += sorted({character for character in text if "一" <= character})
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n", "utf-8")
    with (
        mock.patch.object(shards, "write_manifest", side_effect=Killed),
        contextlib.suppress(Killed),
    ):
        _build(folder)


class Killed(BaseException):
    """Where a kill would be."""


def _open_parts(folder: Path) -> None:
    """What is damaged is made again: the records are those of a whole build."""
    whole = WHOLE_BUILDS.get("parts")
    with contextlib.redirect_stderr(io.StringIO()):
        made = [shard["sha256"] for shard in _build(folder)["shards"]]
    text = (folder / "corpus.txt").read_bytes()  # a file, or it was refused
    if whole is None:
        WHOLE_BUILDS["parts"] = text, made
    elif whole[0] == text:
        assert made == whole[1], "other records"


WHOLE_BUILDS: dict = {}


# Models. TensorFlow's own readers end the process at some of these damages.


def _write_tf1(folder: Path) -> None:
    golden = Path(__file__).parent / "testdata" / "golden" / "pretraining"
    for name in os.listdir(golden / "google_toy"):
        if not name.startswith(("golden", "variables")):
            shutil.copy(golden / "google_toy" / name, folder)


def open_pretrained(folder: Path) -> None:
    from albert_tf2 import load_pretrained

    load_pretrained(folder)


def _write_huggingface(folder: Path, binary: bool = False) -> None:
    from albert_tf2.checkpoints import huggingface, read_weights

    golden = Path(__file__).parent / "testdata" / "golden" / "pretraining"
    huggingface.write(read_weights(golden / "google_toy"), folder)
    shutil.copy(golden / "google_toy" / "vocab.txt", folder)
    if binary:
        import torch
        from safetensors.torch import load_file

        whole = folder / "model.safetensors"
        torch.save(load_file(whole), folder / "pytorch_model.bin")
        whole.unlink()


def _model(folder: Path):
    from albert_tf2.keras_api import keras
    from albert_tf2.model.albert import AlbertPretrainer

    keras.utils.set_random_seed(0)
    vocab_file = samples.write_vocab(folder)
    return AlbertPretrainer(samples.small_config(vocab_file)), vocab_file


def _write_pretrained(folder: Path) -> None:
    from albert_tf2 import save_pretrained

    model, vocab_file = _model(folder)
    save_pretrained(model, folder / "model", vocab_file=vocab_file)
    vocab_file.unlink()


def _write_exported(folder: Path) -> None:
    from albert_tf2 import Tokenizer
    from albert_tf2.hub_export.encoder import export_encoder

    model, vocab_file = _model(folder)
    export_encoder(model, Tokenizer(vocab_file), folder / "encoder")
    vocab_file.unlink()


def _write_foreign(folder: Path) -> None:
    """A SavedModel that says nothing of its files, as other programs' do."""
    _write_exported(folder)
    shutil.rmtree(folder / "encoder" / "assets.extra")


def _open_exported(folder: Path) -> None:
    """Runs the graph, and reads the weights that lie beside it."""
    from albert_tf2.errors import UserError
    from albert_tf2.finetuning import encoders

    wrong = None
    for open_it in (encoders.load_encoder, open_pretrained):
        try:
            open_it(str(folder / "encoder"))
        except UserError as error:
            wrong = error
    if wrong:
        raise wrong


def open_tuned(folder: Path) -> None:
    from albert_tf2 import Predictor

    Predictor(str(folder)).classify([("今天", "明天")])


def open_workdir(folder: Path) -> None:
    """Trains `run` for two steps more on `records`, which lie beside it."""
    from albert_tf2.pretraining.run import Run
    from albert_tf2.training import run_folder
    from albert_tf2.training.identity import PRETRAINING

    workdir = folder / "run"
    run_folder.expect(workdir, PRETRAINING)
    recipe = run_folder.read_recipe(workdir, PRETRAINING)
    recipe = dataclasses.replace(recipe, train_steps=recipe.train_steps + 2)
    run = Run(recipe, folder / "records", workdir, "one_device")
    run.start(None)
    run.train()


def _write_records(folder: Path) -> None:
    import small_records

    for name, kind in (
        ("compact", small_records.compact),
        ("classic", small_records.classic),
    ):
        small_records.write_set(folder / name, [5, 4], kind=kind, held_out=3)
    small_records.write_set(folder / "foreign", [5], kind=small_records.classic)
    (folder / "foreign" / "manifest.json").unlink()


def _open_records(folder: Path) -> None:
    from albert_tf2.data import inspect_records

    for name in ("compact", "classic", "foreign"):
        with contextlib.redirect_stdout(io.StringIO()):
            inspect_records.main(["--data_dir", str(folder / name)])


def _write_logits(folder: Path) -> None:
    import numpy as np

    logits = np.arange(8, dtype=np.float32).reshape(4, 2)
    np.save(folder / "logits.npy", logits)
    samples.write_lines(
        folder / "logits.jsonl", [{"logits": row} for row in logits.tolist()]
    )


def _open_logits(folder: Path) -> None:
    from albert_tf2.finetuning.teacher import LogitFile
    from albert_tf2.tasks import registry

    for name in ("logits.npy", "logits.jsonl"):
        LogitFile(str(folder / name), registry.create("lcqmc"), 4, _quiet)


def _tune(folder: Path, *more: str) -> None:
    from albert_tf2 import finetune

    with contextlib.redirect_stdout(io.StringIO()):
        finetune.main(
            ["--task", "lcqmc", "--data_dir", str(folder / "data")]
            + ["--init_checkpoint", str(folder / "model")]
            + ["--workdir", str(folder / "run"), "--strategy", "one_device"]
            + ["--set", "max_train_steps=2", "--set", "max_seq_length=24"]
            + ["--set", "global_batch_size=4", *more]
        )


def _write_tuning(folder: Path, *more: str) -> None:
    _write_pretrained(folder)
    samples.write_lcqmc(folder / "data")
    _tune(folder, *more)


SWEEP = ("--sweep", "learning_rate=1e-4,1e-3")


def _open_tuning(folder: Path) -> None:
    """What a finished run is asked for again, and what others read of it."""
    from albert_tf2 import clue_submission, compare, plot

    run = str(folder / "run")
    _tune(folder)
    with contextlib.redirect_stdout(io.StringIO()):
        compare.main([run, run])
        plot.main([run])
    with contextlib.suppress(ValueError):  # LCQMC is none of CLUE's
        clue_submission.main(
            ["--team", "us", "--output_dir", str(folder / "sent"), "--add"]
            + ["afqmc", f"{run}/predictions/test.jsonl", str(folder / "data")]
        )


OPENERS = {
    **{
        kind: functools.partial(_open_task, task)
        for kind, (task, _) in TASK_FILES.items()
    },
    "recipes": _open_recipes,
    "configs": _open_config,
    "corpus": _open_corpus,
    "inputs": _open_inputs,
    "archives": _open_archives,
    "arrays": _open_arrays,
    "parts": _open_parts,
    "tf1": open_pretrained,
    "safetensors": open_pretrained,
    "torch": open_pretrained,
    "pretrained": lambda folder: open_pretrained(folder / "model"),
    "exported": _open_exported,
    "foreign": _open_exported,
    "records": _open_records,
    "logits": _open_logits,
    "tuning": _open_tuning,
    "sweep": lambda folder: _tune(folder, *SWEEP),
    "tuned": open_tuned,
    "workdir": open_workdir,
}
WRITERS = {
    **{kind: write for kind, (_, write) in TASK_FILES.items()},
    "recipes": _write_recipes,
    "configs": _write_config,
    "corpus": _write_corpus,
    "inputs": _write_inputs,
    "archives": _write_archives,
    "arrays": _write_arrays,
}
LIGHT = tuple(WRITERS)
HEAVY = {
    "parts": _write_parts,
    "tf1": _write_tf1,
    "safetensors": _write_huggingface,
    "torch": functools.partial(_write_huggingface, binary=True),
    "pretrained": _write_pretrained,
    "exported": _write_exported,
    "foreign": _write_foreign,
    "records": _write_records,
    "logits": _write_logits,
    "tuning": _write_tuning,
    "sweep": lambda folder: _write_tuning(folder, *SWEEP),
}
WRITERS |= HEAVY
# The last two are written by the tests of their modules.
NEED_TENSORFLOW = {*HEAVY, "tuned", "workdir"}


def write(kind: str, folder: Path) -> Path:
    """Writes a whole sample of a kind into a new folder."""
    folder.mkdir(parents=True)
    WRITERS[kind](folder)
    return folder
