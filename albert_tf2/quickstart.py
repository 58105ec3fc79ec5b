r"""From raw text to hub.KerasLayer in a few minutes, offline, on a laptop.

Runs the project's own commands, one after the other, and shows each: learns a
vocabulary, builds records, pre-trains a small ALBERT, draws its curves,
exports encoder, preprocessor and TFLite, and uses them from a fresh process.
Then the same with the starter, the model that comes along: what three hours of
training give, not a minute. A second run goes on where the first one stopped.

python -m albert_tf2.quickstart
python -m albert_tf2.quickstart --workdir runs/mine --input_file 'my/*.txt'
"""

import dataclasses
import importlib
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path

from albert_tf2 import command_line, paths
from albert_tf2.checkpoints.download import STARTER
from albert_tf2.errors import UserError, require
from albert_tf2.recipes import (
    PretrainRecipe,
    load_recipe,
    require_optimizer,
)
from albert_tf2.settings import MAX_STEPS
from albert_tf2.training.run_log import EVALUATION, read_rows

RECIPE = "pretrain_quickstart.yaml"
SETTINGS = "quickstart.json"
EXAMPLE, STARTER_EXAMPLE = "hub_example.json", "starter_example.json"


def sample(*parts: str) -> Path:
    """Returns a path inside the sample data that the package ships."""
    return Path(str(resources.files("albert_tf2.data"))).joinpath(
        "sample", *parts
    )


@dataclasses.dataclass(frozen=True)
class Stage:
    """One command: `python -m {module} {arguments}`.

    `product` is the last thing that it writes, and it writes it whole: where
    it exists, the stage is done. Pre-training writes as it goes, so it has a
    test of its own.
    """

    title: str
    module: str
    arguments: list[str]
    product: Path
    fresh_process: bool = False
    is_done: Callable[[Path], bool] = Path.exists

    @property
    def command(self) -> str:
        return shlex.join(["python", "-m", self.module, *self.arguments])

    def run(self) -> None:
        if self.fresh_process:
            # Without the warnings that libraries print about each other.
            code = subprocess.run(
                [sys.executable, "-W", "ignore", "-m", self.module]
                + self.arguments
            ).returncode
        else:
            code = importlib.import_module(self.module).main(self.arguments)
        if code:
            raise UserError(
                f"`{self.command}` stopped with exit code {code}: see its "
                "message above, then run the quickstart again"
            )


def plan(args, recipe: PretrainRecipe, recipe_file: Path) -> list[Stage]:
    """Returns the stages of a run, in order."""
    workdir = args.workdir
    vocab_file = args.vocab_file or workdir / "vocab.txt"
    records, model = workdir / "records", workdir / "pretrain"
    hub, starter = workdir / "hub", workdir / "starter"
    stages = []
    if args.vocab_file is None:
        stages.append(
            Stage(
                "learn a vocabulary",
                "albert_tf2.data.vocabulary",
                ["--input_file", *args.input_file]
                + ["--output", str(vocab_file)]
                + ["--vocab_size", str(args.vocab_size)],
                vocab_file,
            )
        )
    stages += [
        Stage(
            "build records: jieba's whole words, sentence-order pairs",
            "albert_tf2.data.build_pretraining_data",
            ["--input_file", *args.input_file]
            + ["--vocab_file", str(vocab_file)]
            + ["--output_dir", str(records)]
            + ["--max_seq_length", str(recipe.max_seq_length)]
            + ["--eval_fraction", str(args.eval_fraction)],
            records / "manifest.json",
        ),
        Stage(
            "pre-train; evaluate on held-out documents",
            "albert_tf2.pretrain",
            ["--config", str(recipe_file)]
            + ["--data_dir", str(records)]
            + ["--workdir", str(model)]
            + [word for pair in args.set for word in ("--set", pair)],
            model / EVALUATION,
            is_done=lambda path: trained_steps(path) >= recipe.train_steps,
        ),
        Stage(
            "draw the curves",
            "albert_tf2.plot",
            [str(model)],
            model / "curves.png",
        ),
        Stage(
            "export encoder, preprocessor and TFLite",
            "albert_tf2.hub_export.export",
            ["--checkpoint", str(model)]
            + ["--export_dir", str(hub)]
            + ["--what", "preprocessor,encoder,tflite", "--overwrite"],
            hub / "tflite" / "1",
        ),
        _use(
            "use them in a fresh process: embed, fine-tune on sentence pairs",
            hub,
            args,
            workdir / EXAMPLE,
        ),
        Stage(
            "export the starter, the model that comes along",
            "albert_tf2.hub_export.export",
            ["--checkpoint", STARTER, "--export_dir", str(starter)]
            + ["--what", "preprocessor,encoder", "--overwrite"],
            starter / "encoder" / "1",
        ),
        _use(
            "use it in the same way",
            starter,
            args,
            workdir / STARTER_EXAMPLE,
        ),
    ]
    return stages


def _use(title: str, exported: Path, args, output: Path) -> Stage:
    """Returns the stage that embeds and fine-tunes with what was exported."""
    return Stage(
        title,
        "albert_tf2.hub_example",
        ["--pairs", str(args.pairs)]
        + ["--preprocessor", str(exported / "preprocessor" / "1")]
        + ["--encoder", str(exported / "encoder" / "1")]
        + ["--steps", str(args.finetune_steps)]
        + ["--output", str(output)],
        output,
        fresh_process=True,
    )


def trained_steps(path: Path) -> int:
    """Returns the step of a run's newest evaluation, -1 before any."""
    return int(([{"step": -1}, *read_rows(path)])[-1]["step"])


def check_settings(workdir: Path, settings: dict) -> None:
    """Keeps a workdir to one set of arguments; a resumed run must match."""
    path = workdir / SETTINGS
    if path.exists():
        before = paths.read_json(path)
        changed = sorted(
            key for key in settings if settings[key] != before.get(key)
        )
        if changed:
            raise UserError(
                f"{workdir} holds a quickstart with another "
                f"`{changed[0]}` ({before.get(changed[0])!r}, now "
                f"{settings[changed[0]]!r}): choose another --workdir"
            )
    else:
        workdir.mkdir(parents=True, exist_ok=True)
        paths.write_json(path, settings)


def run_stages(stages: Sequence[Stage], say: Callable[[str], None]) -> None:
    """Runs what is not there yet, in order."""
    for number, stage in enumerate(stages, start=1):
        say(f"\n[{number}/{len(stages)}] {stage.title}")
        if stage.is_done(stage.product):
            say(f"  already there: {stage.product}")
            continue
        say(f"  $ {stage.command}")
        start = time.monotonic()
        stage.run()
        if not stage.is_done(stage.product):
            raise UserError(
                f"`{stage.command}` ended without writing {stage.product}"
            )
        say(f"  done in {time.monotonic() - start:.0f} s")


def summary(workdir: Path) -> list[tuple[str, str]]:
    """Returns what a run achieved, and where it lies: rows of a table."""
    manifest = paths.read_json(workdir / "records" / "manifest.json")
    first, *_, last = read_rows(workdir / "pretrain" / EVALUATION)
    tuned = paths.read_json(workdir / EXAMPLE)
    with_starter = paths.read_json(workdir / STARTER_EXAMPLE)
    counts = manifest["counts"]
    return [
        (
            "corpus",
            f"{counts['documents']:,} documents, {counts['tokens']:,} tokens, "
            f"{manifest['vocab_size']:,} in the vocabulary",
        ),
        (
            "masked-word loss",
            f"{first['mlm_loss']:.3f} before the first step, "
            f"{last['unigram_loss']:.3f} guessing by frequency, "
            f"{last['mlm_loss']:.3f} trained (held-out)",
        ),
        (
            "held-out accuracy",
            f"masked words {last['mlm_accuracy']:.1%}, "
            f"sentence order {last['sop_accuracy']:.1%}",
        ),
        (
            "sentence pairs",
            f"test accuracy {tuned['test_accuracy']:.1%} with this encoder, "
            f"{with_starter['test_accuracy']:.1%} with the starter "
            f"(one answer for all: {tuned['test_majority']:.1%})",
        ),
        ("curves", str(workdir / "pretrain" / "curves.png")),
        ("checkpoint", str(workdir / "pretrain")),
        ("SavedModels, TFLite", str(workdir / "hub")),
    ]


def next_commands(workdir: Path) -> list[str]:
    """Returns three commands to try after a run."""
    model = workdir / "pretrain"
    return [
        "python -m albert_tf2.predict fill-mask '自公布之日起[MASK][MASK]。'",
        f"python -m albert_tf2.finetune --task lcqmc --data_dir "
        f"{sample('pairs')} --init_checkpoint {STARTER} --workdir "
        f"{workdir / 'finetune'} --set matching_heads=2 --set "
        "max_seq_length=48 --set global_batch_size=32 --set learning_rate=2e-4 "
        "--set num_train_epochs=3",
        f"tensorboard --logdir {model}",
    ]


def show_results(workdir: Path, seconds: float) -> None:
    """Prints the table at the end."""
    try:
        rows = summary(workdir)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{workdir} is finished, but its manifest, evaluation, "
            f"{EXAMPLE} or {STARTER_EXAMPLE} is damaged ({error!r}): run the "
            "quickstart in another --workdir"
        ) from error
    width = max(len(name) for name, _ in rows)
    print(f"\nDone in {seconds:.0f} s.\n")
    for name, text in rows:
        print(f"  {name:<{width}}  {text}")
    print("\nThree commands to try next:")
    for command in next_commands(workdir):
        print(f"  {command}")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see the module docstring."""
    parser = command_line.parser(
        __doc__, prog="python -m albert_tf2.quickstart"
    )
    parser.add_argument(
        "--workdir",
        metavar="FOLDER",
        default="runs/quickstart",
        help="where everything goes (default: %(default)s)",
    )
    parser.add_argument(
        "--input_file",
        nargs="+",
        default=[str(sample("corpus", "*.txt"))],
        metavar="FILE",
        help="the corpus: files or globs (default: the shipped one)",
    )
    parser.add_argument(
        "--vocab_file",
        metavar="FILE",
        help="use this vocabulary instead of learning one",
    )
    command_line.add_number(
        parser,
        "--vocab_size",
        3000,
        "Tokens of the vocabulary to learn, at most.",
        least=1,
        most=10_000_000,
    )
    command_line.add_number(
        parser,
        "--eval_fraction",
        0.08,
        "Share of the documents that is held out.",
        kind=float,
        least=0.0,
        most=0.9,
    )
    command_line.add_recipe(
        parser,
        PretrainRecipe,
        config=f"a recipe for pre-training (default: the shipped {RECIPE})",
        keys="python -m albert_tf2.pretrain",
    )
    parser.add_argument(
        "--pairs",
        metavar="FOLDER",
        default=sample("pairs"),
        help="pairs of questions to fine-tune on, train.tsv and dev.tsv "
        "(default: the shipped ones)",
    )
    command_line.add_number(
        parser,
        "--finetune_steps",
        300,
        "Steps of fine-tuning.",
        least=1,
        most=MAX_STEPS,
    )
    args = parser.parse_args(argv)
    args.workdir = Path(paths.local(args.workdir))

    recipe_file = args.config or Path(
        str(resources.files("albert_tf2.configs") / RECIPE)
    )
    recipe = load_recipe(PretrainRecipe, recipe_file, args.set)
    # Told now, not by a stage some minutes later.
    require_optimizer(recipe)
    require("the quickstart's picture", ["matplotlib"], "plot")
    settings = json.loads(json.dumps(vars(args), default=str))
    for name in ("workdir", "debug"):
        settings.pop(name, None)
    check_settings(args.workdir, settings)

    start = time.monotonic()
    run_stages(plan(args, recipe, recipe_file), print)
    show_results(args.workdir, time.monotonic() - start)
    return 0


if __name__ == "__main__":
    command_line.run(main)
