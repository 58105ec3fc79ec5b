"""Every field of every class of settings is checked, and says what it is."""

import dataclasses
import importlib.util
import json
import math
import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from albert_tf2 import settings
from albert_tf2.config import AlbertConfig
from albert_tf2.data.build_config import BuildConfig
from albert_tf2.errors import MAX_SHOWN, UserError, check_choice, shown
from albert_tf2.recipes import (
    FinetuneRecipe,
    Lengths,
    PretrainRecipe,
    load_recipe,
)

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
CLASSES = (PretrainRecipe, FinetuneRecipe, Lengths, BuildConfig, AlbertConfig)
# What a class cannot do without.
NEEDED = {AlbertConfig: {"vocab_size": 99}}
FIELDS = [
    pytest.param(cls, field, id=f"{cls.__name__}.{field.name}")
    for cls in CLASSES
    for field in settings.of(cls).values()
]
# Sentences are short enough to read in a help.
LONGEST_SENTENCE = 200


def wrong_values(field):
    """Yields values that a field must refuse, for each kind of slip."""
    yield from ([], {}, object(), b"bytes", (1, 2), math.nan, -math.inf)
    if not field.optional:
        yield None
    if field.kind is not bool:
        yield from (True, False)
    if field.kind in (int, float):
        yield from ("", "many", "1 2", "0x10", "１", "nan", "-.inf", "1e400")
        yield from (math.inf, 10**5000, -(10**5000), 10**400)
    if field.kind is int:
        yield from (1.5, 3.0, "3", "3.0")
        below, above = field.least - 1, field.most + 1
        yield from (below, above, -(10**18), 10**18)
    if field.kind is float:
        yield from (-1, -1e-9, 1e300)
        if field.least is not None:
            yield math.nextafter(field.least, -math.inf)
        if field.most is not None:
            yield math.nextafter(field.most, math.inf)
        yield from (x for x in (field.above, field.below) if x is not None)
    if field.kind is bool:
        yield from (0, 1, "true", "yes")
    if field.kind is str:
        yield from ("", " ", "a\nb", "a\0b", "\ud800", 3)
        if field.choices:
            yield from ("nonsense", field.choices[0].upper(), "a" * 10**6)
    if field.kind is tuple:
        yield from ("text", 3, [1, 2], [["a"]], [{}], ["a", " "], ["a", None])
        if not field.blanks:
            yield ["a", ""]
        if not field.repeats:
            yield ["a", "a"]


def expected_in(error, source, field):
    told = str(error.value)
    assert told.startswith(f"{source}: `{field.name}` must be "), told
    assert f"Received: `{field.name}=" in told
    assert "\n" not in told and len(told) < 400


@pytest.mark.parametrize("cls, field", FIELDS)
def test_each_field_refuses_what_is_wrong(cls, field):
    for value in wrong_values(field):
        if value == [] and field.kind is tuple:
            continue
        values = {**NEEDED.get(cls, {}), field.name: value}
        with pytest.raises(UserError) as error:
            cls(**values)
        expected_in(error, cls.__name__, field)
        with pytest.raises(UserError) as error:
            settings.create(cls, values, "some.json")
        expected_in(error, "some.json", field)


@pytest.mark.parametrize("cls, field", FIELDS)
def test_each_field_takes_its_limits(cls, field):
    for value in (field.least, field.most, *field.choices):
        if value is not None:
            assert field.check(value) == value
            assert field.read(str(value)) == value
    for limit, towards in ((field.above, math.inf), (field.below, -math.inf)):
        if limit is not None:
            assert field.check(math.nextafter(limit, towards))
    if field.optional:
        assert field.check(None) is None and field.read(None) is None


@pytest.mark.parametrize("cls, field", FIELDS)
def test_each_field_says_what_it_is(cls, field):
    sentence = field.sentence
    assert sentence.endswith(".") and len(sentence) < LONGEST_SENTENCE
    assert "\n" not in sentence and "|" not in sentence
    assert field.kind in (bool, int, float, str, tuple)
    if field.kind is int:
        assert field.least is not None and field.most is not None
    if field.kind is float:
        assert field.least is not None or field.above is not None
        assert field.most is not None or field.below is not None


@pytest.mark.parametrize("cls", CLASSES)
def test_defaults_are_what_they_were_and_pass(cls):
    made = cls(**NEEDED.get(cls, {}))
    for name, field in settings.of(cls).items():
        if field.default is not settings.REQUIRED:
            value = getattr(made, name)
            assert value == field.default
            assert type(value) is type(field.default)
            assert field.read(field_as_written(value)) == value


def field_as_written(value):
    if isinstance(value, tuple):
        return list(value)
    return None if value is None else settings.spelled(value)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=str)
def test_shipped_recipes_pass(path):
    is_pretraining = path.name.startswith("pretrain")
    recipe = load_recipe(
        PretrainRecipe if is_pretraining else FinetuneRecipe, path
    )
    assert dataclasses.replace(recipe) == recipe


# Rows that used to pass, or to end in a traceback: --set, expected words.
REFUSED = {
    PretrainRecipe: """
        warmup_steps=-5 masked_lm_prob=5 weight_decay=-1 beta_1=2 epsilon=-1
        hidden_dropout_prob=1.5 learning_rate=.nan learning_rate=.inf seed=-1
        scale_learning_rate_from=0 scale_learning_rate_from=-3 clip_norm=-0.0
        learning_rate=1e400 train_steps=true train_steps=1_000.0 max_ngram=1000
        keep_checkpoints=0 shuffle_buffer=1000000000000000000 model= seed=null
        global_batch_size=1000000000000 train_steps=2026-99-99 seed=1:30
        masked_lm_prob=0 end_learning_rate=-1 jit_compile=maybe epsilon=1e-46
    """,
    FinetuneRecipe: """
        clip_norm=-1 warmup_proportion=5 max_train_steps=0 eval_every=-1
        classifier_dropout=1.5 max_query_length=-5 lamb_adaptation=nonsense
        n_best=0 doc_stride=0 max_seq_length=2 num_seeds=0 labels=[a,a]
        labels=a labels=[a,''] labels=[a,a] num_train_epochs=.inf
        max_eval_rows=0 max_train_rows=-1 class_weights=Balanced
    """,
}


@pytest.mark.parametrize(
    "cls, override",
    [
        (cls, override)
        for cls, overrides in REFUSED.items()
        for override in overrides.split()
    ],
)
def test_wrong_settings_are_refused(cls, override):
    key, _, text = override.partition("=")
    with pytest.raises(UserError) as error:
        load_recipe(cls, None, [override])
    told = str(error.value)
    assert told.startswith(f"--set: `{key}` must be ")
    if not text.startswith("["):
        assert f"`{key}={text or 'null'}`" in told


@pytest.mark.parametrize(
    "cls, override, value",
    [
        (PretrainRecipe, "learning_rate=1e-4", 1e-4),
        (PretrainRecipe, "learning_rate='1.5E-3'", 1.5e-3),
        (PretrainRecipe, "learning_rate=1", 1.0),
        (PretrainRecipe, "weight_decay=-0.0", 0.0),
        (PretrainRecipe, "train_steps=125_000", 125_000),
        (PretrainRecipe, "seed=010", 10),
        (PretrainRecipe, "jit_compile=yes", True),
        (PretrainRecipe, "jit_compile=False", False),
        (PretrainRecipe, "hidden_dropout_prob=null", None),
        (PretrainRecipe, "hidden_dropout_prob=", None),
        (PretrainRecipe, "model='null'", "null"),
        (PretrainRecipe, "model=runs/x/albert_config.json # mine", None),
        (FinetuneRecipe, "labels=[no, yes]", ("no", "yes")),
        (FinetuneRecipe, "labels=[00, 1.0, null]", ("00", "1.0", "null")),
        (FinetuneRecipe, "labels=[好 评, '差,评']", ("好 评", "差,评")),
        (FinetuneRecipe, "columns=['', label, '', text_a]", None),
    ],
)
def test_values_are_read_by_their_field(cls, override, value):
    key = override.partition("=")[0]
    found = getattr(load_recipe(cls, None, [override]), key)
    if key == "model" and value is None:
        value = "runs/x/albert_config.json"
    if key == "columns":
        value = ("", "label", "", "text_a")
    assert found == value and type(found) is type(value)
    assert math.copysign(1, found) == 1 if key == "weight_decay" else True


@pytest.mark.parametrize(
    "override",
    ["gradient_accumulation_steps=3", "end_learning_rate=0.1"],
)
def test_fields_that_do_not_fit_together(override):
    with pytest.raises(UserError, match="^--set: .* Received: `.* and `"):
        load_recipe(PretrainRecipe, None, [override])


def write(path, content):
    if isinstance(content, str):
        content = content.encode()
    path.write_bytes(content)
    return path


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)


@pytest.mark.parametrize(
    "content, message",
    [
        ("seed: 1\nepsilon: 1.0e-6\nseed: 2\n", "line 3: `seed` stands in"),
        ("seed: &s 1\nwarmup_steps: *s\n", "line 1: references"),
        (BOMB, "line 1: references"),
        ("<<: {seed: 1}\n", "`<<` must be one value"),
        ("seed: !!python/object/apply:os.system [ls]\n", "tags (!)"),
        ("seed: !!int 3\n", "tags (!)"),
        ("- seed\n", "must hold `key: value` lines"),
        ("seed\n", "must hold `key: value` lines"),
        ("seed: 1\n---\nseed: 2\n", "line 2: must be one document"),
        ("---\n---\nseed: 2\n", "line 2: must be one document"),
        ("seed: 1\n...\nseed: 2\n", "line 3: not valid YAML"),
        ("[seed]: 1\n", "a key must be one word"),
        ("? {seed: 1}\n: 2\n", "a key must be one word"),
        ("seed: {a: 1}\n", "`seed` must be one value"),
        ("seed: [[1]]\n", "`seed` must be one value"),
        ("seed: [1\n", "not valid YAML"),
        ("seed:\t\t\t- 1\n\t- 2\n", "not valid YAML"),
        ("seed: 1\0\n", "not valid YAML"),
        (b"seed: 1\xff\n", "is not UTF-8 (byte 7)"),
        ("#" * 200_000, "larger than 100,000 bytes"),
        ("a" * 900 + ": 1\n", "unknown key `aaa"),
        ("seed: " + "9" * 5000 + "\n", "`seed` must be a whole number"),
        ("seed: " + "[" * 50_000, "`seed` must be one value"),
        ("[" * 50_000, "must hold `key: value` lines"),
        ("1: 2\n", "unknown key `1`; known keys"),
        ("sead: 2\n", "unknown key `sead`; did you mean `seed`?"),
    ],
)
def test_hostile_files_get_one_short_sentence(tmp_path, content, message):
    path = write(tmp_path / "bad.yaml", content)
    start = time.process_time()
    with pytest.raises(UserError) as error:
        load_recipe(PretrainRecipe, path)
    assert time.process_time() - start < 5
    told = str(error.value)
    assert message in told and str(path) in told
    assert "\n" not in told and len(told) < 1500


def test_nothing_but_comments_is_the_defaults(tmp_path):
    for content in ("", "# a\n", "---\n", "\ufeff# a\n"):
        path = write(tmp_path / "none.yaml", content)
        assert load_recipe(PretrainRecipe, path) == PretrainRecipe()


def test_a_wrong_set_is_quoted(tmp_path):
    for text in ("learning_rate=[", "seed=a: b", "seed=*x", "seed=@"):
        with pytest.raises(UserError) as error:
            load_recipe(PretrainRecipe, None, [text])
        assert str(error.value).startswith(f"--set: `{text}`: ")


def test_where_a_value_came_from_is_named(tmp_path):
    path = write(tmp_path / "mine.yaml", "global_batch_size: 6\nseed: -1\n")
    with pytest.raises(UserError, match=r"mine\.yaml: `seed` must"):
        load_recipe(PretrainRecipe, path)
    # What is replaced is not judged.
    overrides = ["seed=1", "gradient_accumulation_steps=4"]
    with pytest.raises(UserError) as error:
        load_recipe(PretrainRecipe, path, overrides)
    assert str(error.value) == (
        f"{path} and --set: `global_batch_size` must be divisible by "
        "`gradient_accumulation_steps`. Received: `global_batch_size=6` and "
        "`gradient_accumulation_steps=4`"
    )
    with pytest.raises(UserError, match="--scale: `seed` must"):
        load_recipe(PretrainRecipe, None, flags={"seed": ("--scale", -1)})
    # A flag that was not given changes nothing.
    flags = {"seed": ("--scale", None)}
    assert load_recipe(PretrainRecipe, None, ["seed=1"], flags=flags).seed == 1
    # The last of several counts.
    assert load_recipe(PretrainRecipe, None, ["seed=1", "seed=2"]).seed == 2


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_file_is_read_or_refused(tmp_path_factory, content):
    path = write(tmp_path_factory.getbasetemp() / "any.yaml", content)
    try:
        load_recipe(PretrainRecipe, path)
    except UserError as error:
        assert "\n" not in str(error)


@given(
    st.lists(
        st.sampled_from(
            ["seed", "labels", ":", " ", "\n", "[", "]", "{", "}", ",", "-"]
            + ["'", '"', "#", "&a", "*a", "!", "|", ">", "---", "?", "1", "\t"]
            + ["%", "@", "`", "~", "...", "<<", "\r", "\u2028", "\x85", "é"]
        ),
        max_size=30,
    )
)
def test_any_yaml_is_read_or_refused(tmp_path_factory, parts):
    text = "".join(parts)
    path = write(tmp_path_factory.getbasetemp() / "any.yaml", text)
    for read in (
        lambda: load_recipe(FinetuneRecipe, path),
        lambda: load_recipe(FinetuneRecipe, None, [text]),
        lambda: load_recipe(FinetuneRecipe, None, [f"labels={text}"]),
    ):
        try:
            read()
        except UserError as error:
            assert "\n" not in str(error)


@given(st.recursive(st.integers() | st.text() | st.floats(), st.lists))
def test_values_are_shown_short(value):
    for shown_value in (shown(value), shown([value] * 100), shown({1: value})):
        assert len(shown_value) <= MAX_SHOWN + len("...")
        assert shown_value.isprintable()
    assert shown(10**5000) == "a number of 5000 digits"


def test_the_nearest_choice_is_named():
    for told in (
        lambda: load_recipe(PretrainRecipe, None, ["optimizer=adam"]),
        lambda: check_choice("optimizer", "adam", settings.OPTIMIZERS),
    ):
        with pytest.raises(UserError) as error:
            told()
        assert str(error.value).removeprefix("--set: ").replace("'", "") == (
            "`optimizer` must be one of lamb, adamw; did you mean `adamw`? "
            "Received: `optimizer=adam`"
        )


def test_numbers_of_numpy_are_numbers():
    import numpy as np

    recipe = PretrainRecipe(
        train_steps=np.int64(7), learning_rate=np.float32(0.5)
    )
    assert (recipe.train_steps, recipe.learning_rate) == (7, 0.5)
    assert type(recipe.train_steps) is int
    assert type(recipe.learning_rate) is float


@pytest.mark.parametrize(
    "recipe",
    [
        PretrainRecipe(learning_rate=1e-5, hidden_dropout_prob=0.1),
        FinetuneRecipe(labels=("no", "1.0", "null", "'\"\\", "a: #b")),
    ],
    ids=lambda recipe: type(recipe).__name__,
)
def test_a_run_s_recipe_can_be_given_again(tmp_path, recipe):
    path = tmp_path / "recipe.json"
    for indent in (None, 2):
        write(path, json.dumps(dataclasses.asdict(recipe), indent=indent))
        assert load_recipe(type(recipe), path) == recipe
        values = json.loads(path.read_text())
        assert settings.create(type(recipe), values, str(path)) == recipe


def test_the_reference_page_is_in_step():
    path = CONFIGS.parent / "docs" / "make_settings.py"
    spec = importlib.util.spec_from_file_location("make_settings", path)
    make_settings = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_settings)
    assert make_settings.PAGE.read_text(encoding="utf-8") == (
        make_settings.page()
    ), "run `python docs/make_settings.py`"


def test_arguments_that_are_numbers_are_checked_the_same_way():
    from albert_tf2.prediction.predictor import Predictor

    assert settings.check_number("n", 3, least=1, most=3) == 3
    with pytest.raises(UserError) as error:
        settings.check_number("n", 0, least=1, most=3)
    assert str(error.value) == (
        "`n` must be a whole number from 1 to 3. Received: `n=0`"
    )
    # Before anything is loaded.
    for wrong in ({"batch_size": 0}, {"max_seq_length": 2}):
        with pytest.raises(UserError, match=f"`{next(iter(wrong))}` must be"):
            Predictor("nowhere", **wrong)


@pytest.mark.parametrize(
    "values",
    [
        {"num_hidden_layers": 10**9},
        {"inner_group_num": 10**9, "num_hidden_groups": 1},
        {"num_hidden_groups": 10**9},
        {"vocab_size": 10**9},
        {"hidden_size": 10**9, "num_attention_heads": 1},
        {"max_position_embeddings": 10**9},
        # Each is within its range; together no machine holds them.
        {"vocab_size": 10_000_000, "embedding_size": 1 << 16},
        {"hidden_size": 1 << 16, "num_attention_heads": 1},
        {
            "hidden_size": 4096,
            "num_attention_heads": 64,
            "num_hidden_layers": 1000,
            "parameter_sharing": "none",
        },
    ],
)
def test_absurd_models_are_refused_at_once(values):
    start = time.process_time()
    with pytest.raises(UserError, match=r"^big\.json: `|^big\.json: the model"):
        AlbertConfig.from_dict({"vocab_size": 99, **values}, source="big.json")
    assert time.process_time() - start < 1


def test_every_class_of_settings_is_proved_field_by_field():
    """A new class stands in `CLASSES`, and in a file of effects."""
    root = CONFIGS.parent
    classes = {
        found
        for folder in ("albert_tf2", "data", "hub_export")
        for path in (root / folder).rglob("*.py")
        for found in re.findall(
            r"^class (\w+)(?=(?:(?!^class )[\s\S])*?^    \w+: .*= setting\()",
            path.read_text("utf-8"),
            re.MULTILINE,
        )
    }
    # `BuildConfig` has all fields of `ReadConfig`, which no tool takes alone.
    assert classes == {cls.__name__ for cls in CLASSES} | {"ReadConfig"}
    proofs = "".join(
        path.read_text("utf-8")
        for path in Path(__file__).parent.glob("test_*_effects.py")
    )
    for name in classes:
        assert f" = Effects({name}" in proofs, name


@pytest.mark.parametrize("sign", ["\x00", "\n", "\x1f", "\x7f", "\ud83d"])
def test_a_name_is_one_clean_line(sign):
    field = settings.of(FinetuneRecipe)["teacher"]
    assert field.check("a b") == "a b"
    with pytest.raises(ValueError, match="one line of text"):
        field.check(f"a{sign}b")
