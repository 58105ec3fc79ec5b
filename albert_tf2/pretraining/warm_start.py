"""What a new run starts from."""

from albert_tf2 import files
from albert_tf2.errors import UserError
from albert_tf2.model.albert import AlbertPretrainer


def warm_start(model: AlbertPretrainer, source: files.PathLike) -> None:
    """Copies the weights of any checkpoint that `load_pretrained` reads."""
    from albert_tf2 import load_pretrained

    loaded = load_pretrained(source)
    try:
        pairs = list(zip(model.variables, loaded.variables, strict=True))
    except ValueError:
        raise UserError(
            f"--init_checkpoint {source} has {len(loaded.variables)} "
            f"variables, the recipe's model {len(model.variables)}: it does "
            "not fit; take the configuration that came with it"
        ) from None
    for mine, theirs in pairs:
        if mine.shape != theirs.shape:
            raise UserError(
                f"--init_checkpoint {source} does not fit the recipe's "
                f"model: {mine.name} is {theirs.shape} there and "
                f"{mine.shape} here"
            )
        mine.assign(theirs)
