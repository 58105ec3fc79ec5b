"""Every command answers --help at once, and bad input gets one sentence."""

import errno
import importlib
import json
import os
import re
import shlex
import sys
import threading
from pathlib import Path

import pytest
from checks import check_command, check_refused, command

from albert_tf2 import __main__ as dispatcher
from albert_tf2 import command_line, settings
from albert_tf2.data.build_config import BuildConfig
from albert_tf2.errors import Preempted, UserError
from albert_tf2.recipes import FinetuneRecipe, PretrainRecipe

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {
    "albert_tf2": ROOT / "albert_tf2",
    "albert_tf2.data": ROOT / "data",
    "albert_tf2.hub_export": ROOT / "hub_export",
}
COMMANDS = sorted(
    f"{package}.{path.stem}"
    for package, folder in FOLDERS.items()
    for path in folder.glob("*.py")
    if "command_line.run(main)" in path.read_text(encoding="utf-8")
    and path.name != "__main__.py"
)
# Of these `--version` is the version of what they write.
OWN_VERSION = (".export", ".clue_submission")


def test_all_commands_are_found():
    assert {
        "albert_tf2.convert",
        "albert_tf2.data.build_pretraining_data",
        "albert_tf2.data.vocabulary",
        "albert_tf2.finetune",
        "albert_tf2.hub_export.export",
        "albert_tf2.predict",
        "albert_tf2.pretrain",
        "albert_tf2.quickstart",
    } <= set(COMMANDS)


@pytest.mark.parametrize("module", COMMANDS)
def test_each_command_answers_help_version_and_wrong_flags(module):
    check_command(module, own_version=module.endswith(OWN_VERSION))


def test_a_command_that_loads_tensorflow_is_seen():
    """What `command` runs ends with 99 then, before it does anything."""
    given = ["--input", "none", "--output", "none", "--to", "tf1"]
    assert command("albert_tf2.convert", *given).returncode == 2
    assert command("tensorflow").returncode == 99


class _Built(Exception):
    pass


def parser_of(module, monkeypatch):
    """Returns a command's parser, as it stands when it is to parse."""
    built = []

    def parse(parser, *_):
        built.append(parser)
        raise _Built

    for name in ("parse_args", "parse_intermixed_args"):
        monkeypatch.setattr(command_line._Parser, name, parse)
    with pytest.raises(_Built):
        importlib.import_module(module).main([])
    return built[0]


@pytest.mark.parametrize("module", COMMANDS)
def test_each_flag_has_a_sentence_and_each_number_a_range(module, monkeypatch):
    parser = parser_of(module, monkeypatch)
    flags = {name for a in parser._actions for name in a.option_strings}
    assert "--debug" in flags
    for action in parser._actions:
        assert action.help and len(action.help.split()) >= 2, action
        assert not action.help.startswith("("), action
        # Sentences begin alike; JSON and TensorFlow keep their capitals.
        first, second = action.help[:2]
        assert not first.isupper() or not second.islower(), action
        # `add_number` has a range, bare int and float have none.
        assert action.type not in (int, float), action


def test_a_flag_tells_what_its_setting_is():
    parser = command_line.parser("Does.", "x")
    command_line.add_number(parser, "--n", 7, "Share in %.", least=0, most=9)
    command_line.add_settings(
        parser, BuildConfig, ["segmenter"], defaults={"segmenter": "none"}
    )
    text = " ".join(parser.format_help().split())
    assert "--n N share in % (from 0 to 9; default: 7)" in text
    assert "(default: none)" in text
    assert parser.parse_args([]).segmenter == "none"
    assert parser.parse_args(["--n", "0"]).n == 0


def test_shared_flags_are_the_same_everywhere(monkeypatch):
    shared = {}
    with_normalize = []
    for module in COMMANDS:
        with monkeypatch.context() as patch:
            actions = parser_of(module, patch)._actions
        for action in actions:
            for flag in action.option_strings:
                if flag in ("--strategy", "--tpu", "--debug"):
                    same = (action.help, action.choices, action.default)
                    assert shared.setdefault(flag, same) == same
                if flag == "--normalize":
                    with_normalize.append(module.rpartition(".")[2])
                    assert (action.nargs, action.const) == ("?", True)
                    assert action.type("true") and not action.type("false")
    assert with_normalize == [
        "build_pretraining_data",
        "report",
        "spark_build",
        "vocabulary",
        "export",
    ]


@pytest.mark.parametrize(
    "module, recipe_class",
    [
        ("albert_tf2.pretrain", PretrainRecipe),
        ("albert_tf2.finetune", FinetuneRecipe),
    ],
)
def test_help_lists_the_keys_of_a_recipe(module, recipe_class, monkeypatch):
    text = parser_of(module, monkeypatch).format_help()
    for name, field in settings.of(recipe_class).items():
        line = rf"\n  {name}={re.escape(settings.spelled(field.default))} "
        assert re.search(line + rf".*{re.escape(field.rule)}\n", text), name
        assert field.sentence[:40] in text


@pytest.mark.parametrize(
    "module, arguments, message",
    [
        ("albert_tf2.predict", "embed x --model m --top_k 0", "`top_k` must"),
        ("albert_tf2.predict", "embed x --model m --batch_size -1", "from 1"),
        ("albert_tf2.serve", "--model m --port 70000", "from 0 to 65,535"),
        ("albert_tf2.tpu_check", "--topology v5e:0x2", "v5e"),
        ("albert_tf2.tpu_check", f"--topology v5e:{'9' * 50}", "v5e"),
        (
            "albert_tf2.tpu_check",
            "--max_seq_length 0",
            "--max_seq_length: `max_seq_length` must be a whole number",
        ),
        (
            "albert_tf2.pretrain",
            "--data_dir x --workdir y --scale_learning_rate 0",
            "--scale_learning_rate: `scale_learning_rate_from` must be a whole",
        ),
        ("albert_tf2.hub_export.export", "--dropout 1", "`dropout` must be"),
        ("albert_tf2.data.vocabulary", "--vocab_size 1e3", "a whole number"),
        ("albert_tf2.data.report", "--normalize maybe", "true or false"),
        ("albert_tf2.data.report", "--segmenter rjeiba", "mean `rjieba`"),
    ],
)
def test_wrong_flags_get_one_sentence(module, arguments, message, capsys):
    main = importlib.import_module(module).main
    try:
        main(shlex.split(arguments))
    except UserError as error:
        told = f"error: {error}\n"
    except SystemExit as stop:
        assert stop.code == 2
        told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1
    assert len(told) < 400


@pytest.mark.parametrize(
    "error, code, words",
    [
        (UserError("wrong: this"), 2, "error: wrong: this"),
        (
            FileNotFoundError(errno.ENOENT, "No such file", "a.txt"),
            2,
            "error: a.txt: No such file: check the path (--debug shows where)",
        ),
        (OSError(errno.ENOSPC, "No space left"), 2, "free some space"),
        (OSError("odd"), 2, "error: odd (--debug shows where)"),
        (MemoryError(), 2, "error: out of memory: take a smaller batch"),
        (RecursionError("x"), 2, "error: a file is nested too deeply"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (
            type("ResourceExhaustedError", (Exception,), {})("OOM"),
            2,
            "error: out of memory",
        ),
        (
            type("ResourceExhaustedError", (Exception,), {})(
                "model.data: No space left on device"
            ),
            2,
            "error: no space left: free some space or choose another place",
        ),
        (OSError("two\nlines"), 2, "error: two lines (--debug"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 141, ""),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_last_words(error, code, words, capfd, monkeypatch):
    def main(argv):
        raise error

    for debug in (False, True):
        monkeypatch.setattr(sys, "argv", ["x", "--debug"] if debug else ["x"])
        with pytest.raises(SystemExit) as stop:
            command_line.run(main)
        assert stop.value.code == code
        told = capfd.readouterr().err
        assert words in told.splitlines()[-1] if words else not told
        assert ("Traceback" in told) == bool(debug and words)
        assert debug or told.count("\n") == bool(words)


def test_who_was_stopped_after_saving_is_to_come_again(capsys):
    def main(argv):
        raise Preempted("stopped at step 3")

    with pytest.raises(SystemExit) as stop:
        command_line.run(main)
    assert stop.value.code == 75
    assert capsys.readouterr().err == "stopped at step 3\n"


def test_no_flag_is_guessed_from_its_beginning(capsys):
    parser = command_line.parser("Purpose.")
    parser.add_argument("--output_dir")
    with pytest.raises(SystemExit) as stop:
        parser.parse_args(["--output", "x"])
    assert stop.value.code == 2
    assert "--output" in capsys.readouterr().err


def test_a_fault_of_ours_keeps_its_traceback():
    def main(argv):
        raise KeyError("ours")

    with pytest.raises(KeyError):
        command_line.run(main)


def test_one_name_for_all_commands():
    """`albert-tf2 COMMAND` is the command; its help lists every one."""
    assert sorted(dispatcher.COMMANDS.values()) == COMMANDS
    assert len(dispatcher.COMMANDS) == len(dispatcher.MODULES)
    listed = command("albert_tf2", "--help").stdout
    for name, module in dispatcher.COMMANDS.items():
        purpose = importlib.import_module(module).__doc__.split("\n")[0]
        assert re.search(rf"^  {name} +{re.escape(purpose)}$", listed, re.M)
    assert command("albert_tf2").stdout == listed
    found, wanted = (
        command(*given, "--help").stdout
        for given in (("albert_tf2", "plot"), ("albert_tf2.plot",))
    )
    assert found == wanted != ""


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["pretrian"], "unknown command `pretrian`; did you mean `pretrain`?"),
        (["--debug", "plot"], "a command comes first"),
        (["--workdir", "x"], "unrecognized arguments: --workdir"),
        (["plot"], "the following arguments are required: workdir"),
    ],
)
def test_a_wrong_command_gets_one_sentence(arguments, expected):
    result = command("albert_tf2", *arguments)
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith(f"error: {expected}")


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    """A folder with one of each kind of bad file."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "empty.txt").write_text("")
    (folder / "latin1.txt").write_bytes(b"caf\xe9\n")
    (folder / "text.txt").write_text("今天天气很好。\n明天会下雨。\n\n")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "天", "今"]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    (folder / "no_mask.txt").write_text("\n".join(vocabulary[:4]) + "\n")
    (folder / "recipe.yaml").write_text("train_stepz: 3\n")
    (folder / "config.json").write_text(json.dumps({"vocab_size": "x"}))
    return folder


BUILD = "albert_tf2.data.build_pretraining_data --output_dir {out} "
CASES = {
    "missing corpus": (
        BUILD + "--input_file {bad}/none.txt --vocab_file {bad}/vocab.txt",
        "none.txt",
    ),
    "empty corpus": (
        BUILD + "--input_file {bad}/empty.txt --vocab_file {bad}/vocab.txt",
        "empty.txt",
    ),
    "corpus that is not UTF-8": (
        BUILD + "--input_file {bad}/latin1.txt --vocab_file {bad}/vocab.txt",
        "latin1.txt, line 1",
    ),
    "missing vocabulary": (
        BUILD + "--input_file {bad}/text.txt --vocab_file {bad}/none.txt",
        "none.txt",
    ),
    "vocabulary without [MASK]": (
        BUILD + "--input_file {bad}/text.txt --vocab_file {bad}/no_mask.txt",
        "[MASK]",
    ),
    "unknown recipe key": (
        "albert_tf2.pretrain --config {bad}/recipe.yaml --data_dir {bad} "
        "--workdir {out}",
        "recipe.yaml: unknown key `train_stepz`; did you mean `train_steps`?",
    ),
    "missing recipe": (
        "albert_tf2.pretrain --config {bad}/none.yaml --data_dir {bad} "
        "--workdir {out}",
        "none.yaml",
    ),
    "wrong model file": (
        "albert_tf2.pretrain --set model={bad}/config.json --data_dir {bad} "
        "--workdir {out}",
        "config.json: `vocab_size` must be a whole number",
    ),
    "unknown model": (
        "albert_tf2.pretrain --set model=albert_tyni_zh --data_dir {bad} "
        "--workdir {out}",
        "did you mean `albert_tiny_zh`",
    ),
    "wrong override": (
        "albert_tf2.pretrain --set train_steps=many --data_dir {bad} "
        "--workdir {out}",
        "--set: `train_steps` must be a whole number",
    ),
    "checkpoint that is not there": (
        "albert_tf2.hub_export.export --checkpoint {bad}/none "
        "--export_dir {out}",
        "none",
    ),
    "conversion of nothing": (
        "albert_tf2.convert --input {bad}/none --output {out} --to tf1",
        "none",
    ),
    "missing task files": (
        "albert_tf2.finetune --task lcqmc --data_dir {bad}/none "
        "--init_checkpoint {bad} --workdir {out}",
        "none",
    ),
}
# These must open a checkpoint, which is TensorFlow's file.
MAY_LOAD = ("checkpoint", "conversion")


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_sentence(name, bad, tmp_path):
    line, expected = CASES[name]
    out = tmp_path / "out"
    check_refused(
        *shlex.split(line.format(bad=bad, out=out)),
        says=expected,
        writes=out,
        may_load_tensorflow=name.startswith(MAY_LOAD),
        cwd=tmp_path,
    )


def test_threads_that_silence_the_terminal_leave_it_as_it_was():
    before, inside, tried = os.fstat(2), threading.Event(), threading.Event()

    def second():
        inside.wait()
        with command_line.nobody_hears():
            tried.set()
            first.join()

    def silence():
        with command_line.nobody_hears():
            inside.set()
            tried.wait(0.2)  # the other cannot, or it would undo this

    first = threading.Thread(target=silence)
    other = threading.Thread(target=second)
    first.start()
    other.start()
    other.join()
    after = os.fstat(2)
    assert (after.st_dev, after.st_ino) == (before.st_dev, before.st_ino)
