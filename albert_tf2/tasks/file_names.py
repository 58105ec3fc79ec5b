"""The names under which data sets are published, by task and split.

Each split has alternatives, of which the first that a folder holds counts; a
tuple of names is one split in several files.
"""

from albert_tf2.tasks.reading import SPLITS


def splits(*names: tuple) -> dict[str, tuple]:
    """Returns the file names of train, dev and test, in this order."""
    return dict(zip(SPLITS, names, strict=True))


def endings(*endings: str) -> dict[str, tuple]:
    return {s: tuple(f"{s}{end}" for end in endings) for s in SPLITS}


# CLUE 1.1 names its test files so, or numbers them; DataCLUE and FewCLUE have
# a public one, and FewCLUE five small parts of its training set beside the
# whole.
TEST = ("test1.1.json", "test.json", "test1.0.json", "test_public.json")
CLUE = splits(
    ("train.json", "train_few_all.json", "train_0.json"),
    ("dev.json", "dev_few_all.json", "dev_0.json"),
    TEST,
)
OCNLI = {
    **CLUE,
    "train": (
        *(f"train.{size}.json" for size in ("50k", "30k", "10k", "3k")),
        *CLUE["train"],
    ),
}
CMNLI = {
    split: (*CLUE[split], f"cmnli_public/{split}.json") for split in SPLITS
}
PAIRS = endings(".txt", ".tsv", ".csv")
ATEC = {
    **PAIRS,
    "train": (
        ("atec_nlp_sim_train.csv", "atec_nlp_sim_train_add.csv"),
        *PAIRS["train"],
    ),
}
PAWSX = splits(
    ("translated_train.tsv", "train.tsv", "zh/translated_train.tsv"),
    ("dev_2k.tsv", "dev.tsv", "zh/dev_2k.tsv"),
    ("test_2k.tsv", "test.tsv", "zh/test_2k.tsv"),
)
XNLI = splits(
    (
        "XNLI-MT-1.0/multinli/multinli.train.zh.tsv",
        "multinli.train.zh.tsv",
        "train.tsv",
        "train.jsonl",
    ),
    *(
        (
            f"XNLI-1.0/xnli.{split}.tsv",
            f"xnli.{split}.tsv",
            f"xnli.{split}.jsonl",
            f"{split}.tsv",
            f"{split}.jsonl",
        )
        for split in ("dev", "test")
    ),
)
SENTIMENT = splits(
    ("train.tsv", "train.txt", "train.csv", "ChnSentiCorp_htl_all.csv"),
    ("dev.tsv", "dev.txt", "dev.csv"),
    ("test.tsv", "test.txt", "test.csv"),
)
CMRC = splits(
    ("train.json", "cmrc2018_train.json"),
    ("dev.json", "cmrc2018_dev.json"),
    ("test.json", "cmrc2018_test_2k.json", "cmrc2018_test.json"),
)
DRCD = splits(
    ("train.json", "DRCD_training.json"),
    ("dev.json", "DRCD_dev.json"),
    ("test.json", "DRCD_test.json"),
)
QUESTIONS = endings(".json", ".jsonl")
C3 = splits(
    *(
        (
            (f"m-{split}.json", f"d-{split}.json"),
            (f"c3-m-{split}.json", f"c3-d-{split}.json"),
            f"{split}.json",
        )
        for split in ("train", "dev")
    ),
    (
        *("test1.1.json", "test1.0.json", "test.json"),
        ("m-test.json", "d-test.json"),
    ),
)
CHID = splits(
    (*CLUE["train"], "train_data.txt"), (*CLUE["dev"], "dev_data.txt"), TEST
)
NAMES = endings(".bio", ".txt", ".tsv", ".conll", ".bmes", ".json", ".jsonl")
MSRA = splits(
    ("msra_train_bio.txt", "msra_train_bio", *NAMES["train"]),
    ("msra_dev_bio.txt", "msra_dev_bio", *NAMES["dev"]),
    ("msra_test_bio.txt", "msra_test_bio", *NAMES["test"]),
)
WEIBO = {
    split: (
        f"weiboNER_2nd_conll.{split}",
        f"weiboNER.conll.{split}",
        f"{split}.all.bmes",
        *NAMES[split],
    )
    for split in SPLITS
}
RESUME = {split: (f"{split}.char.bmes", *NAMES[split]) for split in SPLITS}
PEOPLES_DAILY = {split: (f"example.{split}", *NAMES[split]) for split in SPLITS}
