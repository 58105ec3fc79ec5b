"""What lies beside a run's checkpoints."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from albert_tf2 import files, paths, settings
from albert_tf2.config import AlbertConfig
from albert_tf2.errors import UserError
from albert_tf2.recipes import PretrainRecipe

CONFIG_FILE, RECIPE_FILE = "albert_config.json", "recipe.json"


def describe(
    workdir: Path,
    recipe: PretrainRecipe,
    config: AlbertConfig,
    *,
    say: Callable[[str], None],
) -> None:
    """Puts beside the checkpoints what it takes to use them.

    Args:
        workdir: The run's folder.
        recipe: Whose changes since the last start are told.
        config: The model's.
        say: Receives the changes.

    Raises:
        UserError: If the folder holds a run of another model.
    """
    config_file = workdir / CONFIG_FILE
    if config_file.exists() and AlbertConfig.from_json(config_file) != config:
        raise UserError(
            f"{workdir} holds a run of another model ({CONFIG_FILE} "
            "differs): choose another --workdir"
        )
    config.to_json(config_file)
    recipe_file = workdir / RECIPE_FILE
    values = dataclasses.asdict(recipe)
    before = files.read_json(recipe_file) if recipe_file.exists() else values
    for key, value in values.items():
        if before.get(key) != value:
            say(
                f"note: `{key}` was {before.get(key)!r} in the run so far "
                f"and is {value!r} from now on"
            )
    files.write_json(recipe_file, values)


def read_recipe(workdir: files.PathLike) -> PretrainRecipe:
    """Returns the recipe that a run was last started with."""
    path = Path(workdir) / RECIPE_FILE
    return settings.create(
        PretrainRecipe, paths.read_json(path, dict), paths.shown(path)
    )
