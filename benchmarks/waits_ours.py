"""This project's side of `user_waits.py`, and what both sides start from.

`prepare` writes, below the workdir's `prepared/`:

    rows.json             LCQMC's pairs to tune on, pairs and sentences to ask
    tuned/                a classifier of pairs: the model, and a random head
    huggingface_tuned/    the same for Hugging Face
    huggingface/          the model itself
    corpus.txt, records/  text to pre-train on, and what the builder made of it
"""

import asyncio
import atexit
import itertools
import json
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import measuring  # beside this
import numpy as np
import service_load
from measuring import Contender

from albert_tf2.errors import UserError

PRETRAINING_LENGTH, PREDICTIONS = 128, 20
# So many steps that the run does all that a long one does.
ENDLESS = 100_000
SEED = 1


def rows_of(asked: SimpleNamespace) -> dict[str, list]:
    """Returns `train`, `pairs` and `sentences`."""
    return json.loads((prepared(asked) / "rows.json").read_text("utf-8"))


def prepared(asked: SimpleNamespace) -> Path:
    return Path(asked.workdir) / "prepared"


def prepare(asked: SimpleNamespace) -> Contender:
    """Writes what both sides start from."""
    folder = prepared(asked)
    folder.mkdir(parents=True, exist_ok=True)
    _write_rows(asked, folder)
    _write_models(asked, folder)
    _write_records(asked, folder)
    return Contender(dict)


def _write_rows(asked: SimpleNamespace, folder: Path) -> None:
    from albert_tf2.tasks import registry

    task = registry.create("lcqmc")
    source = Path(asked.data_dir) / "lcqmc"
    train = task.read(source, "train")[: asked.tuning_rows]
    dev = task.read(source, "dev")[: asked.sentences]
    rows = {
        "train": [[row.text_a, row.text_b, row.label] for row in train],
        "pairs": [[row.text_a, row.text_b] for row in dev],
        "sentences": [row.text_a for row in dev],
    }
    (folder / "rows.json").write_text(json.dumps(rows), "utf-8")


def _write_models(asked: SimpleNamespace, folder: Path) -> None:
    from albert_tf2.checkpoints import conversion, read_weights
    from albert_tf2.finetuning import encoders
    from albert_tf2.finetuning.tuner import lengths_of
    from albert_tf2.tasks import registry

    task = registry.create("lcqmc", labels=("0", "1"))
    loaded = encoders.load_encoder(asked.model, dropout=_NO_DROPOUT)
    encoders.save(
        folder / "tuned",
        model=encoders.build(task, loaded, seed=SEED),
        task=task,
        loaded=loaded,
        lengths=lengths_of(_tuning_recipe(asked)),
    )
    for source, name in (
        (folder / "tuned", "huggingface_tuned"),
        (asked.model, "huggingface"),
    ):
        conversion.convert(
            read_weights(source), "huggingface", folder / name, overwrite=True
        )


_NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def _write_records(asked: SimpleNamespace, folder: Path) -> None:
    from albert_tf2.data import build_pretraining_data

    files = sorted((Path(asked.data_dir) / "corpus").glob("*.txt"))
    if not files:
        raise UserError(
            f"{asked.data_dir}/corpus holds no .txt file: --data_dir must "
            "name a folder with lcqmc/ and corpus/*.txt"
        )
    each = int(asked.megabytes * 1e6 / len(files))
    with (folder / "corpus.txt").open("wb") as stream:
        for file in files:
            text = file.read_bytes()
            end = text.find(b"\n\n", each) if len(text) > each else len(text)
            stream.write(text[:end].rstrip() + b"\n\n")
    shutil.rmtree(folder / "records", ignore_errors=True)
    build_pretraining_data.main(builder_command(asked, folder / "records")[3:])


def corpus_megabytes(asked: SimpleNamespace) -> float:
    return (prepared(asked) / "corpus.txt").stat().st_size / 1e6


def builder_command(asked: SimpleNamespace, output_dir: Path) -> list[str]:
    folder = prepared(asked)
    return [
        sys.executable,
        "-m",
        "albert_tf2.data.build_pretraining_data",
        *("--input_file", str(folder / "corpus.txt")),
        *("--vocab_file", str(folder / "tuned" / "vocab.txt")),
        *("--output_dir", str(output_dir)),
        *("--max_seq_length", str(PRETRAINING_LENGTH)),
    ]


def _tuning_recipe(asked: SimpleNamespace):
    from albert_tf2 import finetune

    return finetune.read_recipe(
        "lcqmc",
        None,
        [
            f"global_batch_size={asked.batch_size}",
            f"max_train_steps={ENDLESS}",
            f"num_train_epochs={ENDLESS}",
            "classifier_dropout=0.0",
            f"seed={SEED}",
        ],
    )


def fine_tune(asked: SimpleNamespace) -> Contender:
    """A turn is an epoch, from rows to weights, as the loop runs it."""
    measuring.use_threads(asked.threads)
    import tensorflow as tf

    from albert_tf2.finetuning import encoders
    from albert_tf2.finetuning.run import Run
    from albert_tf2.finetuning.tuner import Tuner
    from albert_tf2.tasks import registry
    from albert_tf2.tasks.text_rows import TextRow

    rows = [TextRow(i, *row) for i, row in enumerate(rows_of(asked)["train"])]
    tuner = Tuner(
        registry.create("lcqmc", labels=("0", "1")),
        load_encoder=lambda: encoders.load_encoder(
            asked.model, dropout=_NO_DROPOUT
        ),
        recipe=_tuning_recipe(asked),
        workdir=Path(asked.workdir) / "fine_tune",
        strategy=tf.distribute.get_strategy(),
    )
    examples = tuner.task.encode(
        rows, tuner.tokenizer, tuner.lengths, training=True
    )
    run = Run(tuner, examples, rows, ())
    config = tuner.loaded.config
    flops = 3 * _forward(config, [len(e.sequences[0].ids) for e in examples])
    batches = run.batches(0)
    steps = itertools.count(step=run.steps_per_epoch)

    def turn():
        done = run.run_steps(batches, next(steps), run.steps_per_epoch)
        return {
            "units": len(examples),
            "flops": flops,
            "result": done[0],  # loss and norm of the first step
        }

    return Contender(turn)


def _forward(config, lengths: list[int]) -> int:
    """Returns the FLOPs of a forward pass over rows without padding."""
    from albert_tf2.model.flops import forward_flops

    return sum(forward_flops(config, length) for length in lengths)


def classify(asked: SimpleNamespace) -> Contender:
    """A turn labels all pairs, from strings to probabilities."""
    predictor = _predictor(asked, prepared(asked) / "tuned")
    pairs = [tuple(pair) for pair in rows_of(asked)["pairs"]]
    both = [predictor.tokenizer.tokenize(text).ids for pair in pairs
            for text in pair]  # fmt: skip
    lengths = [
        len(a) + len(b) + 3 for a, b in zip(both[::2], both[1::2], strict=True)
    ]
    work = _work(asked, lengths)

    def turn():
        found = predictor.classify(pairs)
        return work | {
            "units": len(pairs),
            "result": [answer["probabilities"]["1"] for answer in found],
        }

    return Contender(turn)


def embed(asked: SimpleNamespace) -> Contender:
    """A turn embeds all sentences, from strings to an array."""
    predictor = _predictor(asked, asked.model)
    sentences = rows_of(asked)["sentences"]
    lengths = [len(predictor.tokenizer.tokenize(s).ids) + 2 for s in sentences]
    work = _work(asked, lengths)

    def turn():
        vectors = predictor.embed(sentences)
        return work | {"units": len(sentences), "result": vectors.ravel()}

    return Contender(turn)


def _work(asked: SimpleNamespace, lengths: list[int]) -> dict[str, int]:
    """Returns the `flops` of a turn; one contender of a row tells them."""
    if hasattr(asked, "engine"):
        return {}
    return {"flops": _forward(_config(asked), lengths)}


def _predictor(asked: SimpleNamespace, source):
    from albert_tf2.prediction.predictor import Predictor

    more = {}
    if hasattr(asked, "engine"):
        more["engine"] = asked.engine  # which may do without TensorFlow
    else:
        measuring.use_threads(asked.threads)
    return Predictor(str(source), batch_size=asked.batch_size, **more)


def _config(asked: SimpleNamespace):
    from albert_tf2.checkpoints import read_weights

    return read_weights(prepared(asked) / "tuned").config


def service(asked: SimpleNamespace) -> Contender:
    """A turn is some seconds of clients, who ask a service of its own."""
    server = service_load.Server(asked.model)

    def turn():
        began = time.perf_counter()
        cpu = server.cpu_seconds()
        taken = asyncio.run(
            service_load.load(
                server.port, "embed", asked.clients, seconds=asked.seconds
            )
        )
        return {
            "units": len(taken),
            "wall": time.perf_counter() - began,
            "cpu": server.cpu_seconds() - cpu,
            "p50": service_load.percentile(taken, 0.5),
            "p95": service_load.percentile(taken, 0.95),
        }

    atexit.register(server.stop)
    return Contender(turn)


def alone(asked: SimpleNamespace) -> Contender:
    """The service's limit: its model, as many texts at a time as clients."""
    predictor = _predictor(asked, asked.model)
    stream = service_load.texts(0)

    def turn():
        began, done = time.perf_counter(), 0
        while time.perf_counter() - began < asked.seconds:
            predictor.embed(list(itertools.islice(stream, asked.clients)))
            done += asked.clients
        return {"units": done}

    return Contender(turn)


def tokens_and_words(asked: SimpleNamespace) -> Contender:
    """The builder's limit: WordPiece and the segmenter, and nothing else."""
    from albert_tf2.data.words import Segmenter, default_segmenter
    from albert_tf2.text.bulk_tokenization import BulkTokenizer
    from albert_tf2.text.tokenization import Tokenizer

    folder = prepared(asked)
    text = (folder / "corpus.txt").read_text("utf-8")
    parts = list(_parts(text))
    bulk = BulkTokenizer(Tokenizer(folder / "tuned" / "vocab.txt"))
    segmenter = Segmenter(default_segmenter())

    def turn():
        for part in parts:
            segmenter.word_starts(part, bulk.tokenize(part))
        return {"units": corpus_megabytes(asked)}

    return Contender(turn)


def _parts(text: str, size: int = 1 << 20) -> Iterator[str]:
    """Cuts a text at ends of lines."""
    first = 0
    while first < len(text):
        end = text.find("\n", first + size)
        end = len(text) if end < 0 else end + 1
        yield text[first:end]
        first = end


def pretrain(asked: SimpleNamespace) -> Contender:
    """A turn is some steps, from records to weights, as the loop runs them."""
    measuring.use_threads(asked.threads)
    from albert_tf2 import paths
    from albert_tf2.model.flops import training_flops
    from albert_tf2.pretraining.run import Run
    from albert_tf2.recipes import PretrainRecipe

    workdir = Path(asked.workdir) / "pretrain"
    workdir.mkdir(parents=True, exist_ok=True)
    config = _config(asked)
    paths.write_json(workdir / "model.json", config.to_dict())
    recipe = PretrainRecipe(
        model=str(workdir / "model.json"),
        train_steps=ENDLESS,
        global_batch_size=asked.pretraining_rows,
        max_seq_length=PRETRAINING_LENGTH,
        max_predictions_per_seq=PREDICTIONS,
        optimizer="adamw",
        precision="float32",
        seed=SEED,
    )
    run = Run(recipe, prepared(asked) / "records", workdir, "one_device")
    model = _loaded(asked)
    run.model.set_weights(model.get_weights())
    batches, steps = run.batches(0), itertools.count(step=asked.steps)
    # By the formula, of real tokens, whatever a contender leaves out.
    per_token = (
        training_flops(config, PRETRAINING_LENGTH, PREDICTIONS)
        / PRETRAINING_LENGTH
    )

    def turn():
        rows = run.run_steps(batches, next(steps), asked.steps)
        tokens = float(rows[:, run.metrics.index("tokens")].sum())
        return {"units": tokens, "flops": tokens * per_token}

    return Contender(turn, _logits(model, words_to_check(asked)).ravel())


def _loaded(asked: SimpleNamespace):
    from albert_tf2 import load_pretrained

    return load_pretrained(asked.model)


def words_to_check(asked: SimpleNamespace) -> np.ndarray:
    """Returns some ids whose masked-word logits both sides compute: [2, 8]."""
    rng = np.random.default_rng(SEED)
    return rng.integers(5, 1000, [2, 8])


def _logits(model, ids: np.ndarray) -> np.ndarray:
    ids = ids.astype(np.int32)
    positions = np.tile(np.arange(ids.shape[1], dtype=np.int32), [len(ids), 1])
    return model(
        {
            "input_word_ids": ids,
            "input_mask": np.ones_like(ids),
            "input_type_ids": np.zeros_like(ids),
            "masked_lm_positions": positions,
        }
    )["mlm_logits"].numpy()


if __name__ == "__main__":
    measuring.serve(
        {
            "gemm": measuring.gemm,
            "prepare": prepare,
            "fine_tune": fine_tune,
            "classify": classify,
            "embed": embed,
            "service": service,
            "alone": alone,
            "tokens_and_words": tokens_and_words,
            "pretrain": pretrain,
        }
    )
