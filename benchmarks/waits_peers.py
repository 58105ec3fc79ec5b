"""The peers' side of `user_waits.py`: Hugging Face and ONNX Runtime.

Every contender is what a careful user of theirs would write: texts sorted by
length, rows padded to the longest of their batch, no dropout, no gradients
where none are needed. They start from what `waits_ours.prepare` wrote, with
the same weights.
"""

import itertools
from collections.abc import Iterator
from types import SimpleNamespace

import measuring  # beside this
import numpy as np
from measuring import Contender
from waits_ours import (
    PRETRAINING_LENGTH,
    SEED,
    prepared,
    rows_of,
    words_to_check,
)

NAMES = ("input_ids", "attention_mask", "token_type_ids")


# Programs of their own: python -c PROGRAM FOLDER ...
SIMILARITY = """
import sys
import torch
from transformers import AlbertModel, AutoTokenizer
folder, *texts = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AlbertModel.from_pretrained(folder).eval()
with torch.inference_mode():
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    hidden = model(**inputs).last_hidden_state
    mask = inputs["attention_mask"][:, :, None]
    vectors = (hidden * mask).sum(1) / mask.sum(1)
print(float(torch.cosine_similarity(*vectors, dim=0)))
"""
EXPORT = """
import sys
import torch
from transformers import AlbertModel
folder, output = sys.argv[1:]
model = AlbertModel.from_pretrained(folder, attn_implementation="eager").eval()
names = ["input_ids", "attention_mask", "token_type_ids"]
axes = {name: {0: "rows", 1: "tokens"} for name in names}
inputs = tuple(torch.ones([2, 8], dtype=torch.long) for _ in names)
torch.onnx.export(model, inputs, output, input_names=names,
                  dynamic_axes=axes, dynamo=False)
"""


def _torch(asked: SimpleNamespace):
    import torch

    torch.set_num_threads(asked.threads)
    torch.manual_seed(SEED)
    return torch


def _compiled(asked: SimpleNamespace, function):
    """Compiles for every length at once, if asked."""
    import torch

    if not asked.compiled:
        return function
    return torch.compile(function, dynamic=True)


def _model(asked: SimpleNamespace, name: str, class_name: str):
    import transformers

    model_class = getattr(transformers, class_name)
    return model_class.from_pretrained(
        prepared(asked) / name,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        **(
            {"classifier_dropout_prob": 0.0}
            if class_name.endswith("Classification")
            else {}
        ),
    )


def _tokenizer(asked: SimpleNamespace):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(prepared(asked) / "huggingface")


def _encoded(tokenizer, *texts: list[str]):
    return tokenizer(*texts, truncation=True, max_length=128)


def _padded(tokenizer, encoded, indices, kind: str):
    return tokenizer.pad(
        {name: [encoded[name][i] for i in indices] for name in NAMES},
        return_tensors=kind,
    )


def fine_tune(asked: SimpleNamespace) -> Contender:
    """A turn is an epoch of the same batches, with fused AdamW."""
    torch = _torch(asked)
    from albert_tf2.tasks.encoding import training_order

    tokenizer = _tokenizer(asked)
    first, second, labels = zip(*rows_of(asked)["train"], strict=True)
    encoded = _encoded(tokenizer, list(first), list(second))
    lengths = np.array([len(ids) for ids in encoded["input_ids"]])
    answers = torch.tensor([int(label) for label in labels])
    model = _model(
        asked, "huggingface_tuned", "AlbertForSequenceClassification"
    ).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), 1e-6, weight_decay=0.01, eps=1e-6, fused=True
    )
    loss_of = _compiled(
        asked, lambda inputs, wanted: model(**inputs, labels=wanted).loss
    )
    epochs = itertools.count()

    def step(indices):
        inputs = dict(_padded(tokenizer, encoded, indices, "pt"))
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(inputs, answers[torch.from_numpy(indices)])
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item(), norm.item()

    def turn():
        order = training_order(lengths, asked.batch_size, SEED, next(epochs))
        done = [step(indices) for indices in order]
        return {"units": len(lengths), "result": done[0]}

    return Contender(turn)


def _batches(encoded, size: int) -> Iterator[np.ndarray]:
    """Yields indices, by length, longest first."""
    lengths = np.array([len(ids) for ids in encoded["input_ids"]])
    order = np.argsort(-lengths, kind="stable")
    for begin in range(0, len(order), size):
        yield order[begin : begin + size]


def _by_length(asked: SimpleNamespace, texts, kind: str, compute):
    """Returns a turn: strings in, an answer for each of them out."""
    tokenizer = _tokenizer(asked)

    def turn():
        encoded = _encoded(tokenizer, *texts)
        count = len(texts[0])
        answers = [None] * count
        for indices in _batches(encoded, asked.batch_size):
            found = compute(dict(_padded(tokenizer, encoded, indices, kind)))
            for index, answer in zip(indices, found, strict=True):
                answers[index] = answer
        return {"units": count, "result": np.stack(answers).ravel()}

    return turn


def classify(asked: SimpleNamespace) -> Contender:
    """Probabilities of the same pairs."""
    torch = _torch(asked)
    model = _model(
        asked, "huggingface_tuned", "AlbertForSequenceClassification"
    ).eval()
    logits = _compiled(asked, lambda inputs: model(**inputs).logits)

    def compute(inputs):
        with torch.inference_mode():
            return logits(inputs).softmax(-1)[:, 1].numpy()

    pairs = [list(side) for side in zip(*rows_of(asked)["pairs"], strict=True)]
    return Contender(_by_length(asked, pairs, "pt", compute))


def embed(asked: SimpleNamespace) -> Contender:
    """The mean of the same sentences' tokens."""
    torch = _torch(asked)
    model = _model(asked, "huggingface", "AlbertModel").eval()

    def pooled(inputs):
        hidden = model(**inputs).last_hidden_state
        mask = inputs["attention_mask"][:, :, None].to(hidden.dtype)
        return (hidden * mask).sum(1) / mask.sum(1)

    pooled = _compiled(asked, pooled)

    def compute(inputs):
        with torch.inference_mode():
            return pooled(inputs).numpy()

    sentences = [rows_of(asked)["sentences"]]
    return Contender(_by_length(asked, sentences, "pt", compute))


def _onnx_file(asked: SimpleNamespace, kind: str):
    name = "_int8" if asked.int8 else ""
    return prepared(asked) / f"{kind}{name}.onnx"


def prepare_onnx(asked: SimpleNamespace) -> Contender:
    """Writes both models for ONNX Runtime: fused, and int8 besides."""
    torch = _torch(asked)
    import onnx
    from onnxruntime.quantization import quantize_dynamic
    from onnxruntime.transformers.optimizer import optimize_model

    for kind, folder, class_name, output in (
        ("classify", "huggingface_tuned", "AlbertForSequenceClassification",
         "logits"),
        ("embed", "huggingface", "AlbertModel", "last_hidden_state"),
    ):  # fmt: skip
        model = _model(asked, folder, class_name).eval()
        model.set_attn_implementation("eager")
        path = str(prepared(asked) / f"{kind}.onnx")
        axes = {0: "rows", 1: "tokens"}
        torch.onnx.export(
            _ByName(model, output),
            tuple(torch.ones([2, 8], dtype=torch.long) for _ in NAMES),
            path,
            input_names=list(NAMES),
            output_names=[output],
            dynamic_axes={name: axes for name in NAMES} | {output: {0: "rows"}
                if kind == "classify" else axes},
            dynamo=False,
        )  # fmt: skip
        optimize_model(
            path,
            model_type="bert",
            num_heads=model.config.num_attention_heads,
            hidden_size=model.config.hidden_size,
        ).save_model_to_file(path)
        quantize_dynamic(
            path,
            path.replace(".onnx", "_int8.onnx"),
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )
    return Contender(dict)


def _ByName(model, output: str):  # noqa: N802  it is a class, of torch's
    import torch

    class ByName(torch.nn.Module):
        """Takes the inputs in their order, as an export needs them."""

        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, *inputs):
            named = dict(zip(NAMES, inputs, strict=True))
            return getattr(self.model(**named), output)

    return ByName()


def onnx_classify(asked: SimpleNamespace) -> Contender:
    """Probabilities by ONNX Runtime."""
    run = _session(asked, "classify")

    def compute(inputs):
        logits = run(inputs)
        powers = np.exp(logits - logits.max(-1, keepdims=True))
        return (powers / powers.sum(-1, keepdims=True))[:, 1]

    pairs = [list(side) for side in zip(*rows_of(asked)["pairs"], strict=True)]
    return Contender(_by_length(asked, pairs, "np", compute))


def onnx_embed(asked: SimpleNamespace) -> Contender:
    """Mean vectors by ONNX Runtime."""
    run = _session(asked, "embed")

    def compute(inputs):
        mask = inputs["attention_mask"][:, :, None].astype(np.float32)
        return (run(inputs) * mask).sum(1) / mask.sum(1)

    sentences = [rows_of(asked)["sentences"]]
    return Contender(_by_length(asked, sentences, "np", compute))


def _session(asked: SimpleNamespace, kind: str):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = asked.threads
    loaded = onnxruntime.InferenceSession(str(_onnx_file(asked, kind)), options)
    wanted = {given.name for given in loaded.get_inputs()}

    def run(inputs):
        given = {
            name: value.astype(np.int64)
            for name, value in inputs.items()
            if name in wanted
        }
        return loaded.run(None, given)[0]

    return run


def pretrain(asked: SimpleNamespace) -> Contender:
    """`run_mlm`: whole words, texts joined into full rows, fused AdamW.

    Its head looks at every position, and there is no sentence order. Texts
    are cut into words and tokens beforehand, as it caches them.
    """
    torch = _torch(asked)
    from transformers import DataCollatorForLanguageModeling

    model = _model(asked, "huggingface", "AlbertForMaskedLM").train()
    tokenizer = _tokenizer(asked)
    collator = DataCollatorForLanguageModeling(
        tokenizer, whole_word_mask=True, mlm_probability=0.15,
        mask_replace_prob=1.0, random_replace_prob=0.0, seed=SEED,
    )  # fmt: skip
    rows = list(_full_rows(tokenizer, asked))
    batches = iter(
        torch.utils.data.DataLoader(
            rows,
            batch_size=asked.pretraining_rows,
            sampler=_endless(len(rows)),
            collate_fn=collator,
        )
    )
    with torch.inference_mode():
        ids = torch.from_numpy(words_to_check(asked))
        result = model.eval()(input_ids=ids).logits.numpy().ravel()
    model.train()
    optimizer = torch.optim.AdamW(
        model.parameters(), 1e-4, weight_decay=0.01, fused=True
    )
    loss_of = _compiled(asked, lambda batch: model(**batch).loss)

    def turn():
        tokens = 0
        for batch in itertools.islice(batches, asked.steps):
            optimizer.zero_grad(set_to_none=True)
            loss_of(dict(batch)).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            tokens += int(batch["attention_mask"].sum())
        return {"units": tokens}

    return Contender(turn, result)


def _endless(count: int) -> Iterator[int]:
    """Yields places of rows, in a new order each time."""
    rng = np.random.default_rng(SEED)
    while True:
        yield from rng.permutation(count).tolist()


def _full_rows(tokenizer, asked: SimpleNamespace) -> Iterator[dict[str, list]]:
    """Yields rows without padding, words apart, as the collator reads them."""
    from albert_tf2.data.words import _CUTS, default_segmenter

    cut = _CUTS[default_segmenter()]([])
    text = (prepared(asked) / "corpus.txt").read_text("utf-8")
    lines = [line for line in text.split("\n") if line]
    encoded = tokenizer(
        [" ".join(cut(line)) for line in lines],
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
    )
    joined = {
        name: list(itertools.chain.from_iterable(values))
        for name, values in encoded.items()
    }
    size = PRETRAINING_LENGTH
    for begin in range(0, len(joined["input_ids"]) - size, size):
        yield {
            name: values[begin : begin + size]
            for name, values in joined.items()
        }


if __name__ == "__main__":
    measuring.serve(
        {
            "fine_tune": fine_tune,
            "classify": classify,
            "embed": embed,
            "prepare_onnx": prepare_onnx,
            "onnx_classify": onnx_classify,
            "onnx_embed": onnx_embed,
            "pretrain": pretrain,
        }
    )
