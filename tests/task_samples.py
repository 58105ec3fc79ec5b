"""Small task files and a small model for the tests of `tasks/`."""

import json
from pathlib import Path

from albert_tf2.config import AlbertConfig

# Every character of the texts below; the rest of a text becomes [UNK].
CHARACTERS = (
    "花呗怎么还款如何借钱天气很好今不错我喜欢妈做的汤北京是中国首都在哪里"
    "叶老桂银行浙商企业公司人名说了小明爱踢足球他去学校上课一二三四五六七八"
    "，。？！_[]：、这家那好坏吃饭快乐守株待兔画蛇添足亡羊补牢对牛弹琴"
)


def write_vocab(folder: Path) -> Path:
    """Writes a vocabulary of the sample's characters."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens += sorted(set(CHARACTERS)) + ["al", "##bert", "1", "2", "a", "b"]
    # Pieces as the originals' vocabulary has them, for fill-mask.
    tokens += ["##京", "##国"]
    path = folder / "vocab.txt"
    path.write_text("".join(f"{t}\n" for t in tokens), "utf-8")
    return path


def vocab_size(path: Path) -> int:
    return path.read_text("utf-8").count("\n")


def small_config(vocab_file: Path, **changes) -> AlbertConfig:
    """A model that learns a handful of rows in a second."""
    return AlbertConfig(
        **{
            "vocab_size": vocab_size(vocab_file),
            "embedding_size": 16,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "max_position_embeddings": 64,
            "initializer_range": 0.1,
            **changes,
        }
    )


def write_lines(path: Path, records) -> Path:
    """Writes JSON Lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(record, ensure_ascii=False) for record in records]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


PAIRS = [
    ("花呗怎么还款", "花呗如何还款", "1"),
    ("今天天气很好", "今天天气不错", "1"),
    ("我喜欢妈妈做的汤", "妈妈做的汤我很喜欢", "1"),
    ("北京是中国首都", "中国首都是北京", "1"),
    ("花呗怎么还款", "今天天气很好", "0"),
    ("我喜欢妈妈做的汤", "中国首都是北京", "0"),
    ("小明爱踢足球", "花呗如何借钱", "0"),
    ("他去学校上课", "今天天气不错", "0"),
]


def write_lcqmc(folder: Path, splits=("train", "dev", "test")) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    text = "text_a\ttext_b\tlabel\n" + "".join(
        "\t".join(pair) + "\n" for pair in PAIRS
    )
    for split in splits:
        (folder / f"{split}.txt").write_text(text, "utf-8")
    return folder


ENTITIES = [
    {
        "text": "浙商银行叶老桂说",
        "label": {
            "company": {"浙商银行": [[0, 3]]},
            "name": {"叶老桂": [[4, 6]]},
        },
    },
    {
        "text": "叶老桂去浙商银行",
        "label": {
            "company": {"浙商银行": [[4, 7]]},
            "name": {"叶老桂": [[0, 2]]},
        },
    },
    {"text": "小明去学校上课", "label": {"name": {"小明": [[0, 1]]}}},
    {"text": "今天天气很好", "label": {}},
]


def write_cluener(folder: Path) -> Path:
    for split in ("train", "dev"):
        write_lines(folder / f"{split}.json", ENTITIES)
    write_lines(
        folder / "test.json",
        [{"id": i, "text": row["text"]} for i, row in enumerate(ENTITIES)],
    )
    return folder


def squad(*paragraphs) -> dict:
    """Builds a document from (context, [(question, answers), ...])."""
    return {
        "version": "v1.0",
        "data": [
            {
                "paragraphs": [
                    {
                        "id": f"P{p}",
                        "context": context,
                        "qas": [
                            {
                                "id": f"P{p}_Q{q}",
                                "question": question,
                                "answers": [
                                    {"text": text, "answer_start": start}
                                    for text, start in answers
                                ],
                            }
                            for q, (question, answers) in enumerate(questions)
                        ],
                    }
                ]
            }
            for p, (context, questions) in enumerate(paragraphs)
        ],
    }


QUESTIONS = squad(
    (
        "小明爱踢足球，他去学校上课。",
        [("小明爱踢什么", [("足球", 4)]), ("他去哪里", [("学校", 9)])],
    ),
    ("北京是中国首都。", [("中国首都是哪里", [("北京", 0)])]),
    ("今天天气很好。", [("天气如何", [("很好", 4)])]),
)


def write_cmrc(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "dev", "test"):
        (folder / f"{split}.json").write_text(
            json.dumps(QUESTIONS, ensure_ascii=False), "utf-8"
        )
    return folder


C3 = [
    [
        ["今天天气很好。", "小明去踢足球。"],
        [
            {
                "question": "天气如何？",
                "choice": ["很好", "很坏"],
                "answer": "很好",
            },
            {
                "question": "小明去做什么？",
                "choice": ["吃饭", "踢足球", "上课"],
                "answer": "踢足球",
            },
        ],
        "d1",
    ],
    [
        ["北京是中国首都。"],
        [
            {
                "question": "首都在哪里？",
                "choice": ["北京", "学校", "银行", "公司"],
                "answer": "北京",
            }
        ],
        "d2",
    ],
]


def write_c3(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("m-train", "d-train", "m-dev"):
        (folder / f"{name}.json").write_text(
            json.dumps(C3, ensure_ascii=False), "utf-8"
        )
    number = iter(range(100))
    test = [
        [
            lines,
            [
                {
                    "id": next(number),
                    "question": q["question"],
                    "choice": q["choice"],
                }
                for q in questions
            ],
            document,
        ]
        for lines, questions, document in C3
    ]
    (folder / "test1.1.json").write_text(
        json.dumps(test, ensure_ascii=False), "utf-8"
    )
    return folder


IDIOMS = ["守株待兔", "画蛇添足", "亡羊补牢", "对牛弹琴"] + [
    f"{a}{a}{b}{b}" for a, b in ("一二", "三四", "五六", "七八", "好坏", "人名")
]
CHID = [
    {
        "candidates": IDIOMS,
        "content": [
            "他#idiom000001#，很快乐。",
            "那家公司#idiom000002#，小明#idiom000003#。",
        ],
    },
    {"candidates": IDIOMS, "content": ["今天#idiom000004#，天气很好。"]},
]
CHID_ANSWERS = {
    "#idiom000001#": 0,
    "#idiom000002#": 1,
    "#idiom000003#": 2,
    "#idiom000004#": 3,
}


def write_chid(folder: Path) -> Path:
    for split in ("train", "dev", "test1.1"):
        write_lines(folder / f"{split}.json", CHID)
    for split in ("train", "dev"):
        (folder / f"{split}_answer.json").write_text(json.dumps(CHID_ANSWERS))
    return folder


def write_easy_chid(folder: Path) -> Path:
    """Four rows with one blank each, always the same idiom: soon learned."""
    passages = ("他%s，很快乐。", "那家公司%s。", "小明%s。", "天气很好%s")
    tags = [f"#idiom{n:06d}#" for n in range(len(passages))]
    for split in ("train", "dev", "test1.1"):
        write_lines(
            folder / f"{split}.json",
            [
                {"candidates": IDIOMS, "content": [passage % tag]}
                for passage, tag in zip(passages, tags, strict=True)
            ],
        )
        answers = folder / f"{split}_answer.json"
        answers.write_text(json.dumps(dict.fromkeys(tags, 6)))
    return folder


REVIEWS = [
    ("今天天气很好", "天气"),
    ("我喜欢妈妈做的汤", "吃饭"),
    ("今天天气不错我喜欢做汤", "天气,吃饭"),
    ("他去学校上课", ""),
    ("小明爱踢足球", "足球"),
    ("天气很好去踢足球", "天气,足球"),
    ("妈妈做的汤很好", "吃饭"),
    ("天气很坏", "天气"),
]


def write_reviews(folder: Path) -> Path:
    """Writes texts with several labels, as a user's CSV."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [f'{text},"{labels}"\n' for text, labels in REVIEWS]
    for split in ("train", "dev", "test"):
        (folder / f"{split}.csv").write_text(
            "".join(["评论,标签\n", *rows]), "utf-8"
        )
    return folder


def write_scores(folder: Path) -> Path:
    """Writes pairs with scores from 0 to 5, as JSON Lines."""
    for split in ("train", "dev", "test"):
        write_lines(
            folder / f"{split}.jsonl",
            [
                {"text_a": a, "text_b": b, "score": 4.5 if label == "1" else i}
                for i, (a, b, label) in enumerate(PAIRS, -4)
            ],
        )
    return folder


def write_spans(folder: Path) -> Path:
    """Writes entities as JSON with spans."""
    rows = [
        {
            "text": row["text"],
            "entities": [
                {"start": start, "end": end + 1, "type": kind, "text": surface}
                for kind, surfaces in row["label"].items()
                for surface, spans in surfaces.items()
                for start, end in spans
            ],
        }
        for row in ENTITIES
    ]
    for split in ("train", "dev", "test"):
        write_lines(folder / f"{split}.jsonl", rows)
    return folder


def write_own_questions(folder: Path) -> Path:
    """Writes questions as JSON Lines; one has no answer in its text."""
    rows = [
        {"context": "小明爱踢足球，他去学校上课。", "question": q, "answers": a}
        for q, a in (
            ("小明爱踢什么", {"text": ["足球"], "answer_start": [4]}),
            ("他去哪里", {"text": ["学校"], "answer_start": [9]}),
            ("天气如何", {"text": [], "answer_start": []}),
        )
    ]
    for split in ("train", "dev", "test"):
        write_lines(folder / f"{split}.jsonl", rows)
    return folder


# What writes the files of each task that has its own form of them.
TASK_FILES = {
    "lcqmc": write_lcqmc,
    "cluener": write_cluener,
    "cmrc2018": write_cmrc,
    "c3": write_c3,
    "chid": write_chid,
    "multi_label": write_reviews,
    "regression": write_scores,
    "ner": write_spans,
    "qa": write_own_questions,
    "sentence_vectors": write_lcqmc,
}
