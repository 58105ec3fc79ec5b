"""Lower rates for lower layers (`layer_decay`).

What was learned in pre-training changes the less, the lower it lies: each
group of layers has `layer_decay` times the rate of the group above (ELECTRA,
2003.10555, appendix B; discriminative fine-tuning, 1801.06146). From the top:

    pooler and head            1
    the highest block          d
    ...
    the lowest block           d^n
    embeddings                 d^(n + 1)

ALBERT's layers share their weights, and one variable can have but one rate. So
a block that several layers apply is one group, at the place of the last layer
that applies it: in most models n is 1, and there are three groups. n is the
number of layers only where `parameter_sharing` is `none`.
"""

import tensorflow as tf

from albert_tf2.errors import UserError
from albert_tf2.finetuning.model import TaskModel
from albert_tf2.model.albert import AlbertEncoder
from albert_tf2.training.optimization import plain_name


def groups_of(model: TaskModel) -> list[list[tf.Variable]]:
    """Returns the variables of each group, the embeddings' first.

    Raises:
        UserError: For a hub encoder, whose layers are its own affair.
    """
    encoder = model.encoder
    if not isinstance(encoder, AlbertEncoder):
        raise UserError(
            "recipe: `layer_decay` needs the layers of the encoder, and a hub "
            "encoder does not tell them: start from a checkpoint, or set "
            "layer_decay=1"
        )
    last_use: dict[int, tuple[int, list[tf.Variable]]] = {}
    for number, layer in enumerate(encoder.plan):
        for attention, feed_forward in layer:
            for block in (
                encoder.attention_layers[attention],
                encoder.feed_forward_layers[feed_forward],
            ):
                last_use[id(block)] = (number, block.trainable_variables)
    mapping = encoder.embedding_hidden_mapping_in
    return [
        [
            *encoder.embeddings.trainable_variables,
            *(mapping.trainable_variables if mapping is not None else ()),
        ],
        *(
            [
                variable
                for place, variables in last_use.values()
                if place == number
                for variable in variables
            ]
            for number in sorted({place for place, _ in last_use.values()})
        ),
        [
            *encoder.pooler.trainable_variables,
            *(model.head.trainable_variables if model.head is not None else ()),
        ],
    ]


def factors(model: TaskModel, decay: float) -> dict[str, float]:
    """Returns what each variable has of the rate, by `plain_name`."""
    groups = groups_of(model)
    found = {
        plain_name(variable): decay ** (len(groups) - 1 - height)
        for height, variables in enumerate(groups)
        for variable in variables
    }
    names = [plain_name(variable) for variable in model.trainable_variables]
    assert sorted(names) == sorted(found), "each has one group, and a name"
    return found


def describe(model: TaskModel, decay: float) -> str:
    """Returns the groups' shares of the rate in one line."""
    blocks = len(groups_of(model)) - 2
    shares = [f"embeddings {decay ** (blocks + 1):.4g}"]
    shares += [
        f"block {number + 1} of {blocks} {decay ** (blocks - number):.4g}"
        for number in range(blocks)
    ]
    return f"shares of the rate: {', '.join(shares)}, pooler and head 1"
