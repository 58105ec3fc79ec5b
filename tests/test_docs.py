"""The documentation: examples that run, and a reference that is whole."""

import ast
import doctest
import importlib
import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
# Modules whose examples run as they stand, without TensorFlow.
WITH_EXAMPLES = (
    "config",
    "errors",
    "paths.reading",
    "tasks.clue",
    "tasks.column_names",
    "tasks.ner_files",
    "tasks.span_metrics",
    "tasks.text_rows",
    "text.encodings",
    "text.normalization",
    "text.tokenization",
)
# Whose examples show weights, records or devices that no test has at hand.
ILLUSTRATED = {
    "",
    "checkpoints",
    "model.albert",
    "prediction.predictor",
    "prediction.similarity",
    "pretraining.run",
    "records.masking",
    "training.workers",
}


def test_every_example_runs_or_is_known_not_to():
    folders = {"albert_tf2": "", "data": "data.", "hub_export": "hub_export."}
    found = set()
    for folder, prefix in folders.items():
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            # Where the checkout links what is installed as one package.
            if not prefix and parts[0] in ("data", "hub_export"):
                continue
            if ">>>" in path.read_text("utf-8"):
                name = ".".join(part for part in parts if part != "__init__")
                found.add(prefix + name)
    assert found == {*WITH_EXAMPLES} | ILLUSTRATED


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_the_examples_of_docstrings_run(name):
    module = importlib.import_module(f"albert_tf2.{name}")
    failed, tried = doctest.testmod(module)
    assert tried, "no example is left: take the module out of the list"
    assert not failed


# --- docs/api.md


def documented():
    """Returns (module, name in it, heading) of each entry of docs/api.md."""
    text = (DOCS / "api.md").read_text("utf-8")
    entries = re.findall(
        r"^::: (\S+)\n(?:.*\n)*?.*heading: ([\w.]+)", text, re.M
    )
    for path, heading in entries:
        module, _, name = path.rpartition(".")
        if name in ("reading", "writing"):  # modules, not names in one
            module, name = path, ""
        yield module, name, heading


def test_every_public_name_has_its_entry():
    import albert_tf2

    headings = {heading for _, _, heading in documented()}
    public = {f"albert_tf2.{name}" for name in albert_tf2.__all__}
    layers = {"albert_tf2.keras3.Encoder", "albert_tf2.keras3.Preprocessor"}
    assert public - {"albert_tf2.__version__"} | layers <= headings


def tree_of(module):
    path = ROOT / module.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(path.read_text("utf-8"))


def functions(node):
    """Yields the public functions of a class, or the function itself."""
    if isinstance(node, ast.FunctionDef):
        yield node
    else:
        for child in node.body:
            public = not getattr(child, "name", "_").startswith("_")
            if isinstance(child, ast.FunctionDef) and public:
                yield child


@pytest.mark.parametrize(
    ("module", "name"),
    [(module, name) for module, name, _ in documented() if name],
)
def test_the_api_names_every_argument(module, name):
    (found,) = [
        node
        for node in tree_of(module).body
        if getattr(node, "name", None) == name
    ]
    for function in functions(found):
        text = ast.get_docstring(function)
        if function.name in ("call", "get_config", "from_config"):
            continue  # Keras's own; the class says what they take
        given = function.args
        arguments = [a.arg for a in (*given.args, *given.kwonlyargs)]
        if given.kwarg:
            arguments.append(f"**{given.kwarg.arg}")
        arguments = [a for a in arguments if a not in ("self", "cls")]
        setter = any(
            "setter" in ast.unparse(d) for d in function.decorator_list
        )
        for argument in [] if setter else arguments:
            assert text and re.search(
                rf"^    {re.escape(argument)}: ", text, re.M
            ), f"{module}.{name}: {function.name}: {argument}"


# --- the site


@pytest.fixture(scope="module")
def commands_page():
    spec = importlib.util.spec_from_file_location(
        "commands_page", DOCS / "commands_page.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_commands_has_every_flag(commands_page):
    from albert_tf2.__main__ import COMMANDS

    page = commands_page.page()
    for name, module in COMMANDS.items():
        section = page.split(f"\n## {name}\n")[1].split("\n## ")[0]
        assert f"`python -m {module}`" in section
        for action in commands_page.parser_of(module)._actions:
            for flag in action.option_strings[:1]:
                if flag not in ("-h", "--debug") and action.dest != "version":
                    assert f"| `{flag}" in section, (name, flag)
    # `export --version N` is a flag of its own.
    export = page.split("\n## export\n")[1]
    assert "| `--version" in export.split("\n## ")[0]


def command_lines():
    """Yields (page, module, words) of each of our commands in a code block."""
    pages = [*ROOT.glob("README*.md"), *DOCS.rglob("*.md")]
    for page in pages:
        text = page.read_text("utf-8")
        for code in re.findall(r"^ *```\w*\n(.*?)^ *```$", text, re.M | re.S):
            for line in code.replace("\\\n", " ").splitlines():
                found = re.search(r"python -m (albert_tf2\.[\w.]+)(.*)", line)
                if found:
                    words = re.sub(r"  ?#.*", "", found[2]).split()
                    yield page.relative_to(ROOT), found[1], words


def test_the_commands_of_all_pages_have_the_flags_they_use(commands_page):
    from albert_tf2 import settings
    from albert_tf2.recipes import FinetuneRecipe, PretrainRecipe

    keys = {**settings.of(PretrainRecipe), **settings.of(FinetuneRecipe)}
    seen = 0
    for page, module, words in command_lines():
        known = set(commands_page.parser_of(module)._option_string_actions)
        for word in words:
            if word.startswith("--"):
                flag = word.partition("=")[0]
                assert flag in known, f"{page}: {module} has no {flag}"
                seen += 1
        for flag, value in zip(words, words[1:], strict=False):
            if flag == "--set":
                key = value.strip("'").partition("=")[0]
                assert key in keys, f"{page}: {module} has no key {key}"
    assert seen > 100


def test_every_page_has_its_place_in_the_site():
    """Strict builds check this too, where the site's tools are installed."""
    navigation = (ROOT / "mkdocs.yml").read_text("utf-8").split("\nnav:")[1]
    for page in DOCS.rglob("*.md"):
        name = page.relative_to(DOCS).as_posix()
        assert f": {name}\n" in navigation, f"mkdocs.yml: {name}"


def test_no_page_has_a_merge_left_in_it():
    pages = [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]
    assert len(pages) > 30
    mark = re.compile(r"^(<{7} |={7}$|>{7} )", re.MULTILINE)
    left = [page.name for page in pages if mark.search(page.read_text("utf-8"))]
    assert not left, "git's marks of two versions"
