"""Writes docs/settings.md from the settings themselves.

python docs/make_settings.py
"""

from pathlib import Path

from albert_tf2 import command_line, paths, settings
from albert_tf2.config import AlbertConfig
from albert_tf2.data.build_config import BuildConfig
from albert_tf2.recipes import FinetuneRecipe, PretrainRecipe

PAGE = Path(__file__).with_name("settings.md")
INTRODUCTION = """\
# Settings: every key, what it may be, what it does

Made by `python docs/make_settings.py` from the settings' own declarations
(`albert_tf2/recipes.py`, `data/build_config.py`, `albert_tf2/config.py`);
`--help` of each command shows the same.

- **A recipe** is a YAML file of `key: value` lines with comments; those of the
  project lie in `configs/`. `--config` reads it, `--set key=value` replaces a
  key; of several `--set` of one key the last counts. What neither names has
  the default below.
- **A value is read by its key's type.** `1e-4` is a number, `1_000` is a whole
  number, `1e3` and `3.0` are not; `true`, `yes`, `on` and `false`, `no`, `off`
  are booleans, but `no` in a list of labels is the label `no`. A list is
  `[a, b]`, or a line `- a` for each; `null` means "not set".
- **Nothing else of YAML belongs in a recipe**: references, tags, nested values
  and a key that stands twice are refused, as is a file above 100,000 bytes.
- **A mistake gets one sentence** with where it stands, the key, the rule and
  the value, before anything is loaded or written, and exit code 2:

  ```
  error: my.yaml: `jit_compile` must be true or false. Received: `jit_compile=2`
  error: --set: unknown key `learning_rat`; did you mean `learning_rate`?
  ```
- **How far ranges go.** They catch slips (a sign, a factor of a thousand, an
  endless run), not poor choices.
- `--debug` on any command, or the variable `ALBERT_TF2_DEBUG=1`, shows the
  traceback of an error too.
"""
SECTIONS = (
    (
        PretrainRecipe,
        "Pre-training: `configs/pretrain_*.yaml`",
        "For `python -m albert_tf2.pretrain`. Defaults are albert_zh's, for "
        "a batch of 4096 x 512.",
    ),
    (
        FinetuneRecipe,
        "Fine-tuning: `configs/finetune_*.yaml`",
        "For `python -m albert_tf2.finetune`. Each task has its own file "
        "with the published numbers; the defaults are for sentence pairs.",
    ),
    (
        BuildConfig,
        "Records: flags of the builder",
        "For `python -m albert_tf2.data.build_pretraining_data`, as "
        "`--key value`; the same settings give the same bytes. A boolean's "
        "flag alone means true.",
    ),
    (
        AlbertConfig,
        "Models: `configs/albert_*.json`",
        "Keys of `albert_config*.json`, as they travel with checkpoints. A "
        "file with `num_hidden_groups` is of the google layout, any other of "
        "brightmart's.",
    ),
)


def table(settings_class: type) -> str:
    """Returns a Markdown table of a class's keys."""
    rows = ["| key | default | must be | |", "|---|---|---|---|"]
    for name, field in settings.of(settings_class).items():
        default = f"`{settings.spelled(field.default)}`"
        if field.default is settings.REQUIRED:
            default = ""
        rows.append(
            f"| `{name}` | {default} | {field.rule} | {field.sentence} |"
        )
    return "\n".join(rows)


def page() -> str:
    """Returns docs/settings.md as the declarations are now."""
    parts = [INTRODUCTION]
    for settings_class, title, about in SECTIONS:
        parts.append(f"## {title}\n\n{about}\n\n{table(settings_class)}\n")
    return "\n".join(parts)


def main(argv=None) -> int:
    command_line.parser(__doc__).parse_args(argv)
    with paths.atomic_file(PAGE) as stream:
        stream.write(page())
    print(PAGE)
    return 0


if __name__ == "__main__":
    command_line.run(main)
