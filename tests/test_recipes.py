"""Recipes are read strictly and overridden with types."""

import pytest

from albert_tf2.errors import UserError
from albert_tf2.recipes import FinetuneRecipe, PretrainRecipe, load_recipe


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_recipe_is_read_and_overridden(tmp_path):
    path = write(
        tmp_path / "recipe.yaml",
        "# a comment\nmodel: albert_small_zh\nlearning_rate: 1e-4\n",
    )
    recipe = load_recipe(
        PretrainRecipe, path, ["train_steps=7", "hidden_dropout_prob=0.1"]
    )
    assert recipe.train_steps == 7
    assert recipe.learning_rate == 1e-4  # YAML calls 1e-4 a string
    model = recipe.model_config()
    assert (model.hidden_size, model.hidden_dropout_prob) == (384, 0.1)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train_step=7", "--set: unknown key `train_step`; did you mean"),
        ("train_steps=many", "`train_steps` must be a whole number"),
        ("train_steps=1.5", "`train_steps` must be a whole number"),
        ("jit_compile=1", "`jit_compile` must be true or false"),
        ("learning_rate=fast", "`learning_rate` must be a number"),
        ("train_steps", "must be key=value"),
    ],
)
def test_wrong_overrides(override, message):
    with pytest.raises(UserError) as caught:
        load_recipe(PretrainRecipe, None, [override])
    assert message in str(caught.value)


def test_unreadable_recipes(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load_recipe(PretrainRecipe, tmp_path / "none.yaml")
    bad = write(tmp_path / "bad.yaml", "model: [1\n")
    with pytest.raises(UserError, match="not valid YAML"):
        load_recipe(PretrainRecipe, bad)
    unknown = write(tmp_path / "unknown.yaml", "modle: x\n")
    with pytest.raises(UserError, match=r"unknown\.yaml: unknown key `modle`"):
        load_recipe(PretrainRecipe, unknown)


@pytest.mark.parametrize("recipe_class", [PretrainRecipe, FinetuneRecipe])
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer=adam", "`optimizer` must be one of"),
        ("learning_rate=0", "`learning_rate` must be a number from 1e-12"),
        ("global_batch_size=-1", "`global_batch_size=-1`"),
    ],
)
def test_values_out_of_range(recipe_class, override, message):
    with pytest.raises(UserError) as caught:
        load_recipe(recipe_class, None, [override])
    assert str(caught.value).startswith("--set: ")
    assert message in str(caught.value)


@pytest.mark.parametrize("sign", [*",;|#&*!", "||", "<>", "，"])
def test_a_sign_is_itself_whatever_it_means_in_yaml(sign):
    recipe = load_recipe(FinetuneRecipe, None, [f"delimiter={sign}"])
    assert recipe.delimiter == sign
    columns = ["columns=[label,_,_,text_a,text_a]"]
    recipe = load_recipe(FinetuneRecipe, None, columns)
    assert recipe.columns == ("label", "_", "_", "text_a", "text_a")


def test_columns_that_begin_with_a_comma_get_a_sentence():
    with pytest.raises(UserError, match="not valid YAML"):
        load_recipe(FinetuneRecipe, None, ["columns=[,label]"])
