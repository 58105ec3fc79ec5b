"""Pre-trains ALBERT on records: masked words and sentence order.

The same command resumes a run: a workdir with a checkpoint goes on from it.
Exit codes: 0 done; 2 wrong input; 75 stopped by SIGTERM after saving, so a
scheduler may start the same command again.

    python -m albert_tf2.pretrain --config configs/pretrain_tiny.yaml \\
        --data_dir records --workdir run --set train_steps=1000
"""

import shlex
from collections.abc import Sequence

from albert_tf2 import command_line
from albert_tf2.errors import UserError
from albert_tf2.pretraining import growth
from albert_tf2.recipes import (
    PretrainRecipe,
    load_recipe,
    require_optimizer,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Trains, or evaluates alone; returns the exit code."""
    parser = command_line.parser(__doc__, prog="python -m albert_tf2.pretrain")
    command_line.add_recipe(
        parser,
        PretrainRecipe,
        config="a recipe, as configs/pretrain_*.yaml (default: the defaults "
        "of the keys below)",
    )
    parser.add_argument(
        "--data_dir",
        required=True,
        metavar="FOLDER",
        help="the records, as data.build_pretraining_data writes them",
    )
    parser.add_argument(
        "--workdir",
        required=True,
        metavar="FOLDER",
        help="the run's folder: made by the first start, gone on with by the "
        "next",
    )
    command_line.add_strategy(parser)
    parser.add_argument(
        "--budget",
        metavar="TIME",
        help="the key `budget`: train for 90s, 150m or 2h; the steps follow "
        "from the speed of the first ones",
    )
    parser.add_argument(
        "--scale_learning_rate",
        metavar="BATCH",
        help="the key `scale_learning_rate_from`: multiply the rate by "
        "sqrt(global_batch_size / BATCH)",
    )
    parser.add_argument(
        "--init_checkpoint",
        metavar="SOURCE",
        help="weights to start a new run from: a folder, an archive, a "
        "released model's name",
    )
    parser.add_argument(
        "--evaluate",
        action="store_true",
        help="evaluate the newest checkpoint of the workdir, and stop",
    )
    parser.add_argument(
        "--show_variables",
        action="store_true",
        help="print which variables decay and adapt, and go on",
    )
    arguments = parser.parse_args(argv)
    scale = ("--scale_learning_rate", arguments.scale_learning_rate)
    recipe = load_recipe(
        PretrainRecipe,
        arguments.config,
        arguments.set,
        flags={
            "scale_learning_rate_from": scale,
            "budget": ("--budget", arguments.budget),
        },
    )
    if recipe.budget and any(
        text.partition("=")[0] == "train_steps" for text in arguments.set
    ):
        raise UserError(
            f"--budget {recipe.budget} finds the steps itself: leave it away, "
            "or --set train_steps"
        )
    # Wrong names and depths are told before TensorFlow loads.
    growth.stages(recipe, recipe.model_config())
    if not arguments.evaluate:
        require_optimizer(recipe)
    return _run(arguments, recipe)


def _run(arguments, recipe: PretrainRecipe) -> int:
    from albert_tf2.pretraining import run
    from albert_tf2.training import optimization
    from albert_tf2.training.distribution import create_strategy

    strategy = create_strategy(arguments.strategy, tpu=arguments.tpu)
    if arguments.evaluate:
        row = run.evaluate(arguments.workdir, arguments.data_dir, strategy)
        for name, value in row.items():
            print(f"{name:<14} {value:.6g}")
        return 0
    if arguments.show_variables:
        from albert_tf2.model.albert import AlbertPretrainer

        print(
            optimization.describe_variables(
                AlbertPretrainer(recipe.model_config()).trainable_variables,
                recipe.optimizer,
                recipe.lamb_adaptation,
            )
        )
    result = run.train_and_evaluate(
        recipe,
        arguments.data_dir,
        arguments.workdir,
        strategy,
        init_checkpoint=arguments.init_checkpoint,
    )
    print(_summary(result, arguments.workdir))
    return 0


def _summary(result, workdir: str) -> str:
    """Says how a run ended, and what to do with the model."""
    lines = [f"done: {result.step:,} steps; the model is in {workdir}"]
    if result.first and result.last:
        accuracy = result.last["mlm_accuracy"]
        lines.append(
            f"held-out masked words: loss {result.first['mlm_loss']:.2f} -> "
            f"{result.last['mlm_loss']:.2f}, accuracy {accuracy:.1%}"
        )
    source = shlex.quote(str(workdir))
    return "\n".join(
        [
            *lines,
            "next: python -m albert_tf2.finetune --task lcqmc --data_dir "
            f"LCQMC --init_checkpoint {source} --workdir runs/lcqmc",
            "      python -m albert_tf2.hub_export.export --checkpoint "
            f"{source} --export_dir exported",
        ]
    )


if __name__ == "__main__":
    command_line.run(main)
