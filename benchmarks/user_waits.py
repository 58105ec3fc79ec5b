"""What users wait for, beside what they would wait for elsewhere: one table.

    fine_tune      rows a second, pairs of LCQMC at their lengths
    classify       pairs a second, from strings to probabilities
    embed          sentences a second, from strings to vectors
    first_answer   seconds of `predict similarity` in a fresh process
    service_N      requests a second of N clients at once, one text each
    builder        megabytes of text per CPU-second, text to records
    pretrain       tokens a second that are not padding, records to weights
    export_X       seconds to write, and to verify, what is published

Contenders start from the same weights, and what they answer is compared before
anything is timed (`apart`: the largest difference to ours). They live in
processes of their own and take turns within each round, so that a busy machine
is as busy for each; figures are medians over the rounds, ratios medians of the
rounds' own. The limit is the arithmetic of the real tokens (`model/flops.py`)
at the speed of a float32 product of 2048 x 2048 in the same round, or what a
row's last line says.

--data_dir holds lcqmc/{train,dev}.txt and corpus/*.txt. Every figure is in
WORKDIR/waits.json; a later call measures what is missing there, so that the
whole may take several sittings.

    python benchmarks/user_waits.py --data_dir datasets --rows embed classify
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import measuring  # beside this
import waits_ours
import waits_peers
from waits_table import GEMM, LIMIT, OURS, table

from albert_tf2 import command_line, paths, settings
from albert_tf2.errors import UserError

RESULTS, TABLE = "waits.json", "waits.md"
TEXTS = ("花呗怎么还款", "如何还花呗")
EAGER, COMPILED = "Hugging Face, eager", "Hugging Face, compiled"
IMPORTS = "import tensorflow, tensorflow_text, tf_keras"

# Of `predict`, beside TensorFlow, where this version has any.
ENGINES = getattr(settings, "ENGINES", ("tensorflow",))[1:]

# A contender's turn: what `measuring.serve` answers.
Turn = Callable[[], dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Live:
    """A contender that stays alive between its turns."""

    file: str
    name: str
    asked: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def start(self, title: str, args: argparse.Namespace, stack) -> Turn:
        asked = vars(args) | dict(self.asked)
        kind = "".join(c if c.isalnum() else "_" for c in title)
        log = Path(args.workdir) / f"{self.name}-{kind}.log"
        worker = measuring.Worker(self.file, self.name, asked, log)
        return stack.enter_context(worker).turn


@dataclasses.dataclass(frozen=True)
class Command:
    """A contender whose turn is a whole process."""

    words: Sequence[str]
    units: Callable[[], float] = lambda: 1.0
    read: Callable[[str], float] | None = None  # its answer

    def start(self, title: str, args: argparse.Namespace, stack) -> Turn:
        del title, args, stack

        def turn():
            used = measuring.run_and_measure(list(self.words))
            row = {"units": self.units(), "wall": used.wall, "cpu": used.cpu}
            row["peak_mb"] = used.peak_mb
            if self.read is not None:
                row["result"] = [self.read(used.output)]
            return row

        return turn


def ours(name: str, **asked: Any) -> Live:
    return Live("waits_ours.py", name, asked)


def peer(name: str, **asked: Any) -> Live:
    return Live("waits_peers.py", name, asked)


@dataclasses.dataclass(frozen=True)
class Row:
    """What is waited for.

    Attributes:
        unit: What is counted.
        contenders: By name, ours first; a name that begins with `LIMIT` is no
            peer.
        per: "s", "CPU-s", or "" where the figure is the seconds of a unit.
    """

    title: str
    unit: str
    contenders: Mapping[str, Live | Command]
    per: str = "s"


def rows_of(args: argparse.Namespace) -> dict[str, Row]:
    """Returns all rows, by name."""

    def engines(name: str) -> dict[str, Live]:
        return {
            f"ours, --engine {engine}": ours(name, engine=engine)
            for engine in ENGINES
        }

    def both(name: str) -> dict[str, Live]:
        return {
            OURS: ours(name),
            EAGER: peer(name, compiled=False),
            COMPILED: peer(name, compiled=True),
        }

    def onnx(name: str) -> dict[str, Live]:
        return {
            "ONNX Runtime, float32": peer(f"onnx_{name}", int8=False),
            "ONNX Runtime, int8": peer(f"onnx_{name}", int8=True),
        }

    rows = {
        "fine_tune": Row(
            f"fine-tuning on pairs, batch {args.batch_size}",
            "rows",
            both("fine_tune"),
        ),
        "classify": Row(
            "predict classify",
            "pairs",
            both("classify") | engines("classify") | onnx("classify"),
        ),
        "embed": Row(
            "predict embed",
            "sentences",
            both("embed") | engines("embed") | onnx("embed"),
        ),
        "first_answer": Row(
            "first answer, cold", "answer", first_answers(args), per=""
        ),
    }
    for clients in args.clients:
        rows[f"service_{clients}"] = Row(
            f"service, {clients} client{'s' * (clients > 1)}",
            "requests",
            {
                OURS: ours("service", clients=clients),
                f"{LIMIT}the model alone, {clients} at a time": ours(
                    "alone", clients=clients
                ),
            },
        )
    rows["builder"] = Row(
        "builder",
        "MB",
        {
            OURS: Command(
                [sys.executable, __file__, "--build", args.workdir]
                + [args.data_dir],
                units=lambda: waits_ours.corpus_megabytes(args),
            ),
            f"{LIMIT}WordPiece and segmenter alone": ours("tokens_and_words"),
        },
        per="CPU-s",
    )
    rows["pretrain"] = Row(
        f"pre-training, {args.pretraining_rows} x "
        f"{waits_ours.PRETRAINING_LENGTH}",
        "tokens",
        both("pretrain"),
    )
    for what in ("encoder", "tflite"):
        rows[f"export_{what}"] = Row(
            f"export: {what}", "export", exports(what, args), per=""
        )
    return rows


def first_answers(args: argparse.Namespace) -> dict[str, Command]:
    """Returns who answers from a cold start, and what their answers are."""
    command = [sys.executable, "-m", "albert_tf2.predict"]
    asked = ["similarity", *TEXTS, "--model", args.model]

    def similarity(output: str) -> float:
        return float(json.loads(output)["similarity"])

    found = {OURS: Command([*command, *asked], read=similarity)}
    for engine in ENGINES:
        found[f"ours, --engine {engine}"] = Command(
            [*command, *asked, "--engine", engine], read=similarity
        )
    found["Hugging Face"] = Command(
        [sys.executable, "-c", waits_peers.SIMILARITY]
        + [f"{args.workdir}/prepared/huggingface", *TEXTS],
        read=float,
    )
    found[LIMIT + IMPORTS] = Command([sys.executable, "-c", IMPORTS])
    return found


def exports(what: str, args: argparse.Namespace) -> dict[str, Command]:
    """Returns who publishes an encoder."""
    return {
        OURS: Command(
            [sys.executable, "-m", "albert_tf2.hub_export.export"]
            + ["--checkpoint", args.model, "--what", what, "--overwrite"]
            + ["--export_dir", f"{args.workdir}/exported"]
        ),
        "Hugging Face, torch.onnx.export": Command(
            [sys.executable, "-c", waits_peers.EXPORT]
            + [f"{args.workdir}/prepared/huggingface"]
            + [f"{args.workdir}/exported.onnx"]
        ),
        LIMIT + IMPORTS: Command([sys.executable, "-c", IMPORTS]),
    }


def measure(row: Row, args: argparse.Namespace) -> dict[str, Any]:
    """Returns a row's raw figures: machine, differences, turns by round."""
    with ExitStack() as stack:
        turns = {
            title: contender.start(title, args, stack)
            for title, contender in row.contenders.items()
        }
        # The first turn warms up, and says what they answer.
        first = {title: turn() for title, turn in turns.items()}
        apart = differences(first)
        if any("flops" in found for found in first.values()):
            turns[GEMM] = ours(GEMM).start(GEMM, args, stack)
            turns[GEMM]()
        machine = measuring.machine()
        rounds = [
            {title: turn() for title, turn in turns.items()}
            for _ in range(args.rounds)
        ]
    return {
        "title": row.title,
        "unit": row.unit,
        "per": row.per,
        "threads": args.threads,
        "machine": machine,
        "apart": apart,
        "warm_up": {title: found["wall"] for title, found in first.items()},
        "rounds": rounds,
    }


def differences(first: Mapping[str, dict[str, Any]]) -> dict[str, float]:
    """Takes the results out; returns the largest difference to ours.

    Raises:
        UserError: If they are not even of one length.
    """
    results = {title: found.pop("result", None) for title, found in
               first.items()}  # fmt: skip
    reference = results[OURS]
    apart = {}
    for title, result in results.items():
        if title == OURS or result is None or reference is None:
            continue
        if len(result) != len(reference):
            raise UserError(
                f"{title} answers with {len(result):,} numbers, and ours with "
                f"{len(reference):,}: they do not do the same"
            )
        apart[title] = max(
            abs(a - b) for a, b in zip(result, reference, strict=True)
        )
    return apart


def prepare(args: argparse.Namespace) -> None:
    """Writes what the contenders start from, once for these settings."""
    stamp = Path(args.workdir) / "prepared" / "settings.json"
    names = ("data_dir", "model", "tuning_rows", "sentences", "megabytes")
    chosen = {name: getattr(args, name) for name in names}
    if stamp.is_file() and json.loads(stamp.read_text("utf-8")) == chosen:
        return
    with ExitStack() as stack:
        ours("prepare").start("prepare", args, stack)
        peer("prepare_onnx").start("prepare_onnx", args, stack)
    paths.write_json(stamp, chosen)


def build(workdir: str, data_dir: str) -> int:
    """Builds the records once more, in a new folder: the builder's turn."""
    from albert_tf2.data import build_pretraining_data

    asked = SimpleNamespace(workdir=workdir, data_dir=data_dir)
    with paths.temporary_folder("waits") as folder:
        words = waits_ours.builder_command(asked, Path(folder) / "records")
        return build_pretraining_data.main(words[3:])


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = command_line.parser(__doc__, "python benchmarks/user_waits.py")
    add = parser.add_argument
    add("--data_dir", help="a folder with lcqmc/ and corpus/*.txt")
    add("--workdir", default="runs/waits", help="default: runs/waits")
    add("--model", default="starter", help="default: the starter")
    add("--rows", nargs="+", metavar="ROW", help="default: all of them")
    add("--again", action="store_true", help="measure what is there, too")
    number = command_line.add_number
    for flag, default, sentence in (
        ("rounds", 3, "Turns of each contender."),
        ("threads", 2, "Threads of each contender."),
        ("tuning_rows", 1024, "Pairs of an epoch of fine-tuning."),
        ("sentences", 1024, "Sentences and pairs that are asked."),
        ("batch_size", 64, "Rows at a time."),
        ("pretraining_rows", 32, "Rows of a step of pre-training."),
        ("steps", 8, "Steps of a turn of pre-training."),
    ):
        number(parser, f"--{flag}", default, sentence, least=1, most=10**6)
    number(
        parser, "--megabytes", 4.0, "Of the corpus.", kind=float, above=0,
        most=1e4,
    )  # fmt: skip
    number(
        parser, "--seconds", 2.0, "Of a turn of clients.", kind=float, above=0,
        most=1e4,
    )  # fmt: skip
    add("--clients", type=int, nargs="+", default=[1, 8, 50])
    add("--build", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.build:
        return args
    if args.data_dir is None:
        parser.error("give --data_dir: a folder with lcqmc/ and corpus/*.txt")
    for needed in ("lcqmc/train.txt", "lcqmc/dev.txt", "corpus"):
        if not (Path(args.data_dir) / needed).exists():
            raise UserError(
                f"{args.data_dir} has no {needed}: --data_dir must name a "
                "folder with lcqmc/train.txt, lcqmc/dev.txt and corpus/*.txt"
            )
    args.workdir = str(Path(args.workdir).resolve())
    args.data_dir = str(Path(args.data_dir).resolve())
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line."""
    args = _parse(argv)
    if args.build:
        return build(*args.build)
    Path(args.workdir).mkdir(parents=True, exist_ok=True)
    rows = rows_of(args)
    chosen = args.rows or list(rows)
    for name in chosen:
        if name not in rows:
            raise UserError(
                f"--rows takes some of {', '.join(rows)}. Received: {name}"
            )
    file = Path(args.workdir) / RESULTS
    results = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    missing = [name for name in chosen if args.again or name not in results]
    if missing:
        prepare(args)
    for name in missing:
        results[name] = measure(rows[name], args)
        # In the order of the table, whatever was measured first.
        results = {key: results[key] for key in rows if key in results}
        paths.write_json(file, results)
        print(f"{name} is measured", file=sys.stderr, flush=True)
    shown = table({key: results[key] for key in rows if key in results})
    (Path(args.workdir) / TABLE).write_text(shown + "\n", "utf-8")
    print(shown)
    return 0


if __name__ == "__main__":
    command_line.run(main)
