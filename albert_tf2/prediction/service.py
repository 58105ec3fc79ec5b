"""The HTTP service as an ASGI application: routes over a batching model."""

import asyncio
import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from albert_tf2.errors import UserError
from albert_tf2.prediction import messages, page
from albert_tf2.prediction.batching import Batcher, Busy
from albert_tf2.prediction.guard import Guard, Limits, Names
from albert_tf2.prediction.metrics import Metrics
from albert_tf2.prediction.predictor import Predictor
from albert_tf2.tasks import base

__all__ = ["Limits", "Names", "Service"]

# Seconds after which a client that was refused for want of room may try again.
RETRY_AFTER = "1"


@dataclasses.dataclass(frozen=True)
class _Route:
    """What one path takes and gives.

    Attributes:
        message: The class of its requests.
        answer: From the model, the items of a pass and what else was asked.
        found: The class of one answer.
        meaning: A sentence for OpenAPI.
        sample: An item to warm up with; None has none.
    """

    message: type[messages.Message]
    answer: Callable[..., Sequence[Any]]
    found: Any
    meaning: str
    sample: Any = None


def _similarity(model: Predictor, pairs: Sequence[Any]) -> list[float]:
    found = model.similarity(*zip(*pairs, strict=True))
    return [round(float(cosine), 6) for cosine in found]


def _embed(
    model: Predictor, texts: Sequence[str], pooling: str | None
) -> list[Any]:
    vectors = model.embed(texts, pooling=pooling)
    return np.round(vectors.astype(np.float64), 6).tolist()


ROUTES = {
    "classify": _Route(
        messages.TextsOrPairs,
        lambda model, items: model.classify(items),
        messages.Classified,
        "Labels texts or pairs of texts.",
    ),
    "score": _Route(
        messages.TextsOrPairs,
        lambda model, items: model.score(items),
        messages.Scored,
        "Scores texts or pairs of texts.",
    ),
    "tag": _Route(
        messages.Texts,
        lambda model, items: model.tag(items),
        messages.Tagged,
        "Finds names in texts.",
        "今天",
    ),
    "answer": _Route(
        messages.Pairs,
        lambda model, items: model.answer(items),
        messages.Answered,
        "Answers questions: pairs of a question and a text.",
        ("今天", "今天"),
    ),
    "choose": _Route(
        messages.Questions,
        lambda model, items: model.choose(items),
        messages.Chosen,
        "Picks one of several choices.",
        ("今天", "今天", ["今天", "天"]),
    ),
    "fill_mask": _Route(
        messages.MaskedTexts,
        lambda model, items, top_k: model.fill_masks(items, top_k=top_k),
        list[list[messages.Proposal]],
        "Proposes what stands at each [MASK] of each text.",
        "今[MASK]",
    ),
    "similarity": _Route(
        messages.Pairs,
        _similarity,
        float,
        "The cosine of each pair.",
        ("今天", "今天"),
    ),
    "embed": _Route(
        messages.EmbeddedTexts,
        _embed,
        list[float],
        "A vector for each text.",
        "今天",
    ),
}
# What a model of a kind does beside comparing and embedding texts.
OF_KIND = {
    base.CLASSIFICATION: "classify",
    base.MULTI_LABEL: "classify",
    base.REGRESSION: "score",
    base.TAGGING: "tag",
    base.SPAN: "answer",
    base.CHOICE: "choose",
}


def describe(predictor: Predictor) -> dict[str, Any]:
    """Says what the model can do: which routes, and whether in pairs."""
    routes = ["similarity", "embed"]
    task = predictor.task
    if task is None:
        if predictor.fills_masks:
            routes.insert(0, "fill_mask")
        return {"task": None, "routes": routes}
    if task.kind in OF_KIND:
        routes.insert(0, OF_KIND[task.kind])
    return {
        "task": task.name,
        "routes": routes,
        "pairs": bool(getattr(task, "pairs", False)),
        "labels": list(getattr(task, "types", ()) or task.labels),
        "example": predictor.example(),
    }


class Service:
    """A model behind routes: `app` is the ASGI application.

    Attributes:
        app: To be served.
        batcher: Its queue, to be closed at the end.
        metrics: What it counted.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        limits: Limits | None = None,
        names: Names | None = None,
        batch_size: int = 64,
        wait_seconds: float = 0.005,
        gauges: Callable[[], dict[str, float]] = dict,
    ):
        """Builds the application, and starts the thread of the model.

        Args:
            predictor: The model; from now on the service's alone.
            limits: What a request may take.
            names: Under which browsers may call it; others are refused, so
                that a foreign page cannot reach it under a name of its own.
            batch_size: Texts in a pass of the model; 1: no batching.
            wait_seconds: See `Batcher`.
            gauges: More of what `/metrics` shows at the moment.
        """
        self.limits = limits or Limits()
        self.metrics = Metrics()
        self._predictor = predictor
        self._info = describe(predictor)
        self._gauges = gauges
        self.batcher = Batcher(
            self._answer,
            most_items=batch_size,
            wait_seconds=wait_seconds,
            seen=self.metrics.computed,
        )
        self._api = self._routes()
        self.app = Guard(
            self._api,
            names=names or Names(),
            limits=self.limits,
            metrics=self.metrics,
            routes=[route.path for route in self._api.routes],
        )

    def _answer(self, kind: Any, items: list[Any]) -> Sequence[Any]:
        name, *options = kind
        return ROUTES[name].answer(self._predictor, items, *options)

    def warm_up(self) -> None:
        """Computes a little, so that the first client waits no longer."""
        for name in self._info["routes"]:
            item = ROUTES[name].sample
            if name in ("classify", "score"):
                item = ("今天", "今天") if self._info["pairs"] else "今天"
            options = ROUTES[name].message.model_construct().kind()
            # Another number of texts, and another length, once each: from
            # then on TensorFlow's graphs take any.
            for items in ([item], [item] * 3, [_longer(item)] * 2):
                try:
                    self._answer((name, *options), items)
                except UserError:  # a text that this model does not take
                    break

    def _routes(self) -> Any:
        import fastapi
        from fastapi.exceptions import RequestValidationError
        from fastapi.responses import JSONResponse, Response

        app = fastapi.FastAPI(
            title="albert_tf2",
            docs_url=None,
            redoc_url=None,
            responses={
                "4XX": {"model": messages.Error},
                "5XX": {"model": messages.Error},
            },
        )

        def told(status: int, sentence: str, **headers: str) -> Any:
            return JSONResponse(
                {"detail": sentence}, status_code=status, headers=headers
            )

        @app.exception_handler(RequestValidationError)
        async def tell_fault(request, error):
            route = ROUTES.get(request.url.path.strip("/"))
            known = list(route.message.model_fields) if route else []
            return told(400, messages.fault(error.errors(), known))

        @app.exception_handler(UserError)
        async def tell_mistake(request, error):
            return told(400, str(error))

        @app.exception_handler(Busy)
        async def tell_busy(request, error):
            sentence = "too many requests are waiting: try again later"
            return told(503, sentence, **{"retry-after": RETRY_AFTER})

        @app.exception_handler(TimeoutError)
        async def tell_slow(request, error):
            seconds = f"{self.limits.work_seconds:g} s"
            return told(504, f"there was no answer within {seconds}")

        @app.exception_handler(Exception)
        async def tell_ours(request, error):
            return told(500, "the service failed: its log says where")

        # First, for routes are tried in turn.
        for name, route in ROUTES.items():
            app.add_api_route(
                f"/{name}",
                self._endpoint(name, route.message),
                methods=["POST"],
                response_model=list[route.found],  # type: ignore[name-defined]
                summary=route.meaning,
                name=name,
            )

        def serve_static(path: str, content: str, kind: str) -> None:
            async def static():
                return Response(content, media_type=f"text/{kind}")

            app.add_api_route(path, static, include_in_schema=False)

        serve_static("/", page.HTML, "html")
        serve_static("/page.js", page.SCRIPT, "javascript")
        serve_static("/page.css", page.STYLE, "css")

        @app.get("/info")
        async def info() -> dict[str, Any]:
            """What the model is, and what can be asked of it."""
            return self._info

        @app.get("/health")
        async def health() -> dict[str, str]:
            """Whether the service answers."""
            return {"status": "ok"}

        @app.get("/metrics", response_class=Response)
        async def metrics():
            """Counts and times in Prometheus' text form."""
            text = self.metrics.text(
                albert_waiting_items=self.batcher.waiting, **self._gauges()
            )
            media_type = "text/plain; version=0.0.4"
            return Response(text, media_type=media_type)

        return app

    def _endpoint(self, name: str, message: type[messages.Message]) -> Any:
        from fastapi.responses import Response

        async def endpoint(request):
            items = request.items()
            length = messages.check_cost(items)
            async with asyncio.timeout(self.limits.work_seconds):
                found = await self.batcher.ask(
                    (name, *request.kind()), items, length=length
                )
            for number, answer in enumerate(found):
                if isinstance(answer, dict):
                    answer["id"] = number  # it was that of the whole pass
            # Already what the class says: to check it again costs more
            # than the model does.
            body = json.dumps(found, ensure_ascii=False, allow_nan=False)
            return Response(body.encode(), media_type="application/json")

        endpoint.__annotations__["request"] = message
        return endpoint


def _longer(item: Any) -> Any:
    """Returns an item whose texts have twenty times their length."""
    if isinstance(item, str):
        return item + "今天" * 20
    return type(item)(
        _longer(part) if isinstance(part, str) else part for part in item
    )
