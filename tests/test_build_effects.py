"""Every field of a build has its effect on the bytes of the records.

The corpus has something for each of them: documents that stand twice, lines
that do, HTML, curly quotes, lines of several sentences, documents without a
Chinese character, capitals.
"""

import json

import pytest
from effects import Effects

from albert_tf2.data import build_pretraining_data, workers
from albert_tf2.data.build_config import BuildConfig
from albert_tf2.data.read_config import ReadConfig
from albert_tf2.errors import UserError

WORDS = ["机器学习", "语言模型", "天气很好", "北京大学", "喜欢喝茶"]
PIECES = "".join(sorted(set("".join(WORDS) + "今我们在用的是第一二三四五句")))
TOKENS = '[PAD] [UNK] [CLS] [SEP] [MASK] 。 ！ ， " < > / p'.split()
TOKENS += [*PIECES, *(f"##{piece}" for piece in PIECES), *"abcdefABCDEF"]
TOKENS += [f"##{letter}" for letter in "abcdefABCDEF"]


def line(number, length=6):
    return "，".join(WORDS[(number * 7 + i) % 5] for i in range(length)) + "。"


def corpus():
    documents = [
        "\n".join(line(n + 3 * k, 3 + (n + k) % 5) for k in range(2 + n % 5))
        for n in range(24)
    ]
    long_line = "我们在用的是“语言模型”，" * 4 + "！第一句。第二句。"
    documents += [
        f"{long_line}\n{line(3)}\n{long_line}\n{line(4)}",
        f"<p>今天天气很好</p>&nbsp;\n{line(2)}",
        "Abc def Fed cba.\nbad cab Fab dab.",
        documents[3],
        documents[4],
    ]
    return "\n\n".join(documents) + "\n"


BASE = {
    "max_seq_length": 64,
    "num_shards": 2,
    "eval_fraction": 0.2,
    "max_pairs_per_record": 2,
    "segmenter": "none",
}
MASKED = {
    "dupe_factor": 2,
    "masked_lm_prob": 0.3,
    "max_predictions_per_seq": 19,
}
STATIC = BASE | MASKED | {"masking": "static", "segmenter": "rjieba"}
EFFECTS = Effects(BuildConfig, BASE | MASKED)
READING = Effects(ReadConfig)


class Lab:
    def __init__(self, folder):
        self.folder, self.number = folder, 0
        self.vocab_file = str(folder / "vocab.txt")
        (folder / "vocab.txt").write_text("\n".join(TOKENS) + "\n", "utf-8")
        self.corpus = corpus()
        self.base, self.static = self.records(), self.records(**STATIC)

    def records(self, data=None, name="corpus.txt", **changes):
        """Builds records of a corpus; returns the bytes of each shard."""
        self.number += 1
        folder = self.folder / str(self.number)
        folder.mkdir()
        data = self.corpus.encode() if data is None else data
        (folder / name).write_bytes(data)
        plan = build_pretraining_data.make_plan(
            str(folder / name),
            self.vocab_file,
            str(folder / "records"),
            BuildConfig(**BASE | changes),
        )
        build_pretraining_data.build(plan, workers.Workers(1, progress=False))
        return {
            path.name: path.read_bytes()
            for path in (folder / "records").glob("*.tfrecord")
        }


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    return Lab(tmp_path_factory.mktemp("builds"))


@pytest.mark.parametrize("name", EFFECTS.names)
def test_each_field_has_its_effect(name, lab):
    EFFECTS.check(name, lab)


@pytest.mark.large
@pytest.mark.parametrize("name", EFFECTS.names)
def test_each_proof_fails_when_its_field_is_ignored(name, lab):
    EFFECTS.check_ignored(name, lab)


def test_what_is_read_is_proved_with_the_build():
    """`ReadConfig` has no reader of its own: tools extend it or build."""
    assert set(READING.names) < set(EFFECTS.proofs)


def test_what_is_compared_with_repeats_itself(lab):
    assert lab.records() == lab.base and lab.records(**STATIC) == lab.static


# Other bytes than with the settings of BASE.
OTHERS = {
    "max_seq_length": 32,
    "max_pairs_per_record": 1,
    "short_seq_prob": 1.0,
    "seed": 7,
    "eval_fraction": 0.6,
    "drop_duplicates": "exact",
    "min_han_share": 0.3,
    "segmenter": "rjieba",
    "do_lower_case": False,
    "num_shards": 3,
    "unit_bytes": 64,
    "split_sentences": True,
    "strip_html": True,
    "drop_repeated_lines": True,
    "normalize": True,
    "masking": "static",
}
STATIC_OTHERS = {
    "dupe_factor": 3,
    "masked_lm_prob": 0.1,
    "max_predictions_per_seq": 2,
    "max_ngram": 1,
    "label_style": "albert_zh",
}


def others(name, value, static):
    @EFFECTS.proves(name)
    def _(lab):
        before = lab.static if static else lab.base
        given = (STATIC if static else {}) | {name: value}
        assert lab.records(**given) != before


for _name, _value in OTHERS.items():
    others(_name, _value, False)
for _name, _value in STATIC_OTHERS.items():
    others(_name, _value, True)


@EFFECTS.proves("text_field")
def _(lab):
    rows = [{"a": line(n), "b": line(n + 1)} for n in range(9)]
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    found = [
        lab.records(text, "corpus.jsonl", text_field=fields)
        for fields in (("a",), ("b",), ("a", "b"))
    ]
    assert found[0] != found[1] != found[2] != found[0]


@EFFECTS.proves("input_format")
def _(lab):
    # Text of two columns, each line a document of its own; or one.
    text = "".join(f"{line(n)}\t{line(n + 1)}\n" for n in range(9)).encode()
    columns = lab.records(text, input_format="tsv", text_field=("2",))
    assert columns != lab.records(text, input_format="text")


@EFFECTS.proves("encoding")
def _(lab):
    wide = lab.records(lab.corpus.encode("gb18030"), encoding="gb18030")
    assert wide == lab.base


@EFFECTS.proves("on_error")
def _(lab):
    text = lab.corpus.encode() + b"\n\xff\xfe\xff\n"
    with pytest.raises(UserError):
        lab.records(text)
    assert lab.records(text, on_error="skip")
