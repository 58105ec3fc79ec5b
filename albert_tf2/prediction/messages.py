"""What requests and answers look like, and what is said of those that do not.

OpenAPI is made of these classes (`/openapi.json`). Types are strict and
unknown keys are refused, so a mistake is told and not guessed at.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import pydantic
from pydantic import AfterValidator, ConfigDict, Field

from albert_tf2.errors import UserError, shown, unknown_key
from albert_tf2.prediction.sentence_vectors import POOLINGS
from albert_tf2.text.tokenization import MASK

MAX_TEXTS = 64
MAX_CHARACTERS = 5_000  # of a text
MAX_ALL_CHARACTERS = 50_000  # of a request
MAX_CHOICES = 32  # of a question
MAX_TOP_K = 50
# A [MASK] costs a pass over the vocabulary, a proposal its place in the answer.
MAX_MASKS = 128
MAX_PROPOSALS = 2_000


def _not_blank(text: str) -> str:
    if text.strip():
        return text
    raise ValueError(_TEXT_RULE)


_TEXT_RULE = f"a text must have 1 to {MAX_CHARACTERS} characters"

Text = Annotated[
    str,
    Field(min_length=1, max_length=MAX_CHARACTERS),
    AfterValidator(_not_blank),
]
Pair = Annotated[list[Text], Field(min_length=2, max_length=2)]
Choices = Annotated[list[Text], Field(min_length=2, max_length=MAX_CHOICES)]
TextList = Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS)]
PairList = Annotated[list[Pair], Field(min_length=1, max_length=MAX_TEXTS)]


class Message(pydantic.BaseModel):
    """A request: strict types, known keys."""

    model_config = ConfigDict(extra="forbid", strict=True)

    def items(self) -> list[Any]:
        """What is asked, as `Predictor` takes it."""
        raise NotImplementedError

    def kind(self) -> tuple[Any, ...]:
        """What else is asked for; only equal ones share a pass."""
        return ()


class Texts(Message):
    """Single texts."""

    texts: TextList

    def items(self) -> list[str]:
        return self.texts


class Pairs(Message):
    """Pairs of texts."""

    pairs: PairList

    def items(self) -> list[tuple[str, ...]]:
        return [tuple(pair) for pair in self.pairs]


class TextsOrPairs(Message):
    """Single texts, or pairs: what the model was fine-tuned on."""

    texts: TextList | None = None
    pairs: PairList | None = None

    @pydantic.model_validator(mode="after")
    def _one_of_them(self) -> "TextsOrPairs":
        if (self.texts is None) == (self.pairs is None):
            raise ValueError("give `texts` or `pairs`, one of them")
        return self

    def items(self) -> list[Any]:
        if self.texts is not None:
            return self.texts
        return [tuple(pair) for pair in self.pairs or ()]


class MaskedTexts(Texts):
    """Texts with [MASK], and how many proposals for each."""

    top_k: Annotated[int, Field(ge=1, le=MAX_TOP_K)] = 5

    @pydantic.model_validator(mode="after")
    def _affordable(self) -> "MaskedTexts":
        masks = sum(text.count(MASK) for text in self.texts)
        if masks > MAX_MASKS:
            raise ValueError(
                f"a request may hold {MAX_MASKS} {MASK}. Received: {masks}"
            )
        if masks * self.top_k > MAX_PROPOSALS:
            raise ValueError(
                f"a request may ask for {MAX_PROPOSALS} proposals, and "
                f"{masks} {MASK} x `top_k` {self.top_k} are "
                f"{masks * self.top_k}"
            )
        return self

    def kind(self) -> tuple[Any, ...]:
        return (self.top_k,)


class EmbeddedTexts(Texts):
    """Texts, and what of the model stands for each."""

    # None: the mean, or what a model for sentence vectors was tuned with.
    pooling: Literal[POOLINGS] | None = None  # type: ignore[valid-type]

    def kind(self) -> tuple[Any, ...]:
        return (self.pooling,)


class Question(Message):
    """A text, a question about it, and what may be chosen."""

    text: Text
    question: Text
    choices: Choices


class Questions(Message):
    """Questions with choices."""

    questions: Annotated[
        list[Question], Field(min_length=1, max_length=MAX_TEXTS)
    ]

    def items(self) -> list[tuple[str, str, list[str]]]:
        return [(q.text, q.question, q.choices) for q in self.questions]


class Error(pydantic.BaseModel):
    """Every answer that is none: one sentence."""

    detail: str


class Classified(pydantic.BaseModel):
    """A text's label; several, of a model for several."""

    id: int
    label: str | None = None
    labels: list[str] | None = None
    probability: float | None = None
    probabilities: dict[str, float]


class Scored(pydantic.BaseModel):
    """A text's score."""

    id: int
    score: float
    nearest: float | None = None


class Entity(pydantic.BaseModel):
    """A name in a text; `start` and `end` in characters, half-open."""

    type: str
    text: str
    start: int
    end: int
    probability: float


class Tagged(pydantic.BaseModel):
    """A text and the names in it."""

    id: int
    text: str
    entities: list[Entity]


class Span(pydantic.BaseModel):
    """A possible answer."""

    text: str
    probability: float


class Answered(pydantic.BaseModel):
    """The best answer ("" for none), where it starts, and the next best."""

    id: int
    answer: str
    start: int
    n_best: list[Span]


class Chosen(pydantic.BaseModel):
    """The choice, by number from 0, and its probability."""

    id: int
    label: int
    choice: str
    probability: float
    probabilities: list[float]


class Proposal(pydantic.BaseModel):
    """What may stand at a [MASK]."""

    text: str
    probability: float


def all_characters(items: Sequence[Any]) -> int:
    """Returns how many characters some items hold, choices included."""
    total = 0
    for item in items:
        if isinstance(item, str):
            total += len(item)
        elif len(item) == 3:  # a text that is read with each choice
            text, question, choices = item
            total += (len(text) + len(question)) * len(choices)
            total += all_characters(choices)
        else:
            total += all_characters(item)
    return total


def check_cost(items: Sequence[Any]) -> int:
    """Refuses what would take too long.

    Returns:
        The tokens of the longest item, if each character is one: with [CLS]
        and a [SEP] behind each text.

    Raises:
        UserError: If the texts together are too long.
    """
    lengths = [all_characters([item]) for item in items]
    if sum(lengths) > MAX_ALL_CHARACTERS:
        raise UserError(
            f"a request may hold {MAX_ALL_CHARACTERS} characters (a text "
            f"counts once for each choice). Received: {sum(lengths)}"
        )
    specials = 2 if isinstance(items[0], str) else 3
    return max(lengths) + specials


def fault(errors: Sequence[Any], known: Sequence[str]) -> str:
    """Returns one sentence on why a request does not fit its class.

    Args:
        errors: pydantic's list; the first is told.
        known: The keys of the class.
    """
    error = errors[0]
    kind, context = error["type"], error.get("ctx", {})
    place = _place(error["loc"])
    received = f". Received: {shown(error.get('input'))}"
    if kind == "json_invalid":
        return f"the body is no JSON: {context.get('error', '')}, at {place}"
    if kind == "extra_forbidden":
        return str(unknown_key("the request", error["loc"][-1], known))
    if not place or kind in ("model_attributes_type", "model_type"):
        if kind == "value_error":
            return str(context["error"])
        where = f"`{place}`" if place else "the body"
        return f"{where} must be a JSON object, sent as application/json"
    if kind == "value_error":
        return str(context["error"])
    if kind == "missing":
        return f"`{place}` is missing"
    if kind == "string_unicode":
        return f"`{place}` holds half a character (a lone surrogate)"
    if kind.startswith("string_too"):
        return _TEXT_RULE
    if kind == "string_type":
        return f"`{place}` must be a string{received}"
    if kind == "literal_error":
        return f"`{place}` must be {context['expected']}{received}"
    if kind in ("int_type", "greater_than_equal", "less_than_equal"):
        return f"`{place}` must be from 1 to {MAX_TOP_K}{received}"
    if kind in ("list_type", "too_long", "too_short"):
        return f"`{place}` must be a list of {_sizes(error['loc'])}"
    return f"`{place}`: {error['msg']}"


def _place(location: Sequence[Any]) -> str:
    """Returns `texts[3]` for ("body", "texts", 3)."""
    place = ""
    for part in location[1:]:
        if isinstance(part, int):
            place += f"[{part}]" if place else f"character {part}"
        else:
            place += f".{part}" if place else str(part)
    return place


def _sizes(location: Sequence[Any]) -> str:
    if location[-1] == "choices":
        return f"2 to {MAX_CHOICES} choices"
    if isinstance(location[-1], int):
        return "two texts"
    return f"1 to {MAX_TEXTS} entries"
