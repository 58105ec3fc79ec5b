"""Growing depth: the shared block is applied once at first, then more often.

    grow_depth 1:0.5,2:0.25, 4 layers, 1,000 steps
        steps 0 to 499      1 layer
        steps 500 to 749    2 layers
        steps 750 to 999    4 layers

Layers that share all their weights differ in nothing but their number, so a
deeper model goes on from a shallower one's weights and moments as they are
(cf. progressive stacking, Gong et al. 2019, which copies layers). A step of
one layer costs a fraction of a step of four.
"""

import re
from typing import NamedTuple

from albert_tf2.config import AlbertConfig
from albert_tf2.errors import UserError
from albert_tf2.recipes import PretrainRecipe

_PART = re.compile(r"([0-9]{1,4}):([0-9]{0,9}\.?[0-9]{1,9})")


class Stage(NamedTuple):
    """Some steps of one depth: from `first` to the one before `end`."""

    depth: int
    first: int
    end: int


def stages(recipe: PretrainRecipe, config: AlbertConfig) -> tuple[Stage, ...]:
    """Returns the stages of a run; the last has all the layers.

    Raises:
        UserError: For a text that is none, or a model whose layers differ.
    """
    most, total = config.num_hidden_layers, recipe.train_steps
    if recipe.grow_depth is None:
        return (Stage(most, 0, total),)
    if (
        config.parameter_sharing != "all"
        or config.num_hidden_groups * config.inner_group_num != 1
    ):
        raise UserError(
            "recipe: `grow_depth` needs layers that share all their weights; "
            f"those of {recipe.model} differ: leave the setting away"
        )
    found: list[Stage] = []
    share = 0.0
    for depth, part in _parts(recipe.grow_depth, most):
        share += part
        first = found[-1].end if found else 0
        found.append(Stage(depth, first, round(share * total)))
    found.append(Stage(most, found[-1].end, total))
    return tuple(stage for stage in found if stage.end > stage.first)


def _parts(text: str, most: int) -> list[tuple[int, float]]:
    """Reads `depth:share,...`."""
    found: list[tuple[int, float]] = []
    for part in text.replace(" ", "").split(","):
        match = _PART.fullmatch(part)
        if match is None:
            raise _refusal(text, "such as 1:0.5,2:0.25")
        depth, share = int(match[1]), float(match[2])
        if not (found[-1][0] if found else 0) < depth < most:
            raise _refusal(
                text, f"with depths that rise from 1 on and end below {most}"
            )
        found.append((depth, share))
    if any(share <= 0 for _, share in found) or sum(s for _, s in found) >= 1:
        raise _refusal(text, "with shares above 0 and below 1 in all")
    return found


def _refusal(text: str, rule: str) -> UserError:
    return UserError(
        "recipe: `grow_depth` must be depths with their shares of the steps, "
        f"{rule}. Received: `grow_depth={text}`"
    )
