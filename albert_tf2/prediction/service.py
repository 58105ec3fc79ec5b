"""The HTTP service as an ASGI application: routes, limits, headers."""

import dataclasses
import threading
from collections.abc import Sequence
from typing import Any

from albert_tf2.errors import UserError
from albert_tf2.prediction.predictor import Predictor
from albert_tf2.tasks import base

LOOPBACK = ("127.0.0.1", "localhost", "::1")
# What a model of a kind does beside comparing texts.
ROUTES = {
    base.CLASSIFICATION: "classify",
    base.MULTI_LABEL: "classify",
    base.REGRESSION: "score",
    base.TAGGING: "tag",
    base.SPAN: "answer",
}
# The page uses nothing from elsewhere, and nobody may frame it.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; connect-src 'self'; "
    "script-src 'self'; style-src 'self'; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """What one request may hold."""

    max_body_bytes: int = 262_144
    max_texts: int = 64
    max_characters: int = 5_000  # per text
    max_top_k: int = 50


class BodyLimit:
    """ASGI middleware: refuses bodies over a size, announced or not."""

    def __init__(self, app: Any, max_bytes: int):
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = b""
        more = True
        # Read whole before anything is parsed: the limit is small.
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self.max_bytes:
                await _refuse(send, 413, "the request is too large")
                return
        given = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay():
            return given.pop() if given else await receive()

        await self.app(scope, replay, send)


async def _refuse(send, status: int, reason: str) -> None:
    headers = [(b"content-type", b"application/json")]
    await send(
        {"type": "http.response.start", "status": status, "headers": headers}
    )
    body = f'{{"detail": "{reason}"}}'.encode()
    await send({"type": "http.response.body", "body": body})


def create_app(
    predictor: Predictor,
    *,
    limits: Limits | None = None,
    hosts: Sequence[str] = LOOPBACK,
) -> Any:
    """Returns the service as an ASGI application.

    Args:
        predictor: The model.
        limits: What a request may hold.
        hosts: Names under which browsers may call it; others are refused, so
            that a foreign page cannot reach it under a name of its own.
    """
    import fastapi
    from fastapi.responses import JSONResponse, Response
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from albert_tf2.prediction import page

    limits = limits or Limits()
    lock = threading.Lock()
    app = fastapi.FastAPI(
        title="albert_tf2", docs_url=None, redoc_url=None, openapi_url=None
    )
    app.add_middleware(BodyLimit, max_bytes=limits.max_body_bytes)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))

    @app.exception_handler(UserError)
    def tell(request: fastapi.Request, error: UserError):
        return JSONResponse({"detail": str(error)}, status_code=400)

    @app.middleware("http")
    async def add_headers(request, call_next):
        response = await call_next(request)
        response.headers.update(HEADERS)
        return response

    def serve_static(path: str, content: str, kind: str) -> None:
        app.add_api_route(
            path, lambda: Response(content, media_type=f"text/{kind}")
        )

    serve_static("/", page.HTML, "html")
    serve_static("/page.js", page.SCRIPT, "javascript")
    serve_static("/page.css", page.STYLE, "css")

    @app.get("/info")
    def info():
        return describe(predictor)

    def add(name: str, answer) -> None:
        def route(request: dict[str, Any]):
            with lock:
                return answer(Request(request, limits))

        app.add_api_route(f"/{name}", route, methods=["POST"])

    add("classify", lambda r: predictor.classify(r.texts_or_pairs()))
    add("score", lambda r: predictor.score(r.texts_or_pairs()))
    add("tag", lambda r: predictor.tag(r.texts()))
    add("answer", lambda r: predictor.answer(r.pairs()))
    add(
        "fill_mask",
        lambda r: [
            predictor.fill_mask(text, top_k=r.top_k()) for text in r.texts()
        ],
    )
    add("similarity", lambda r: _similarity(predictor, r.pairs()))
    return app


def _similarity(predictor: Predictor, pairs) -> list[float]:
    texts_a, texts_b = zip(*pairs, strict=True)
    found = predictor.similarity(texts_a, texts_b)
    return [round(float(cosine), 6) for cosine in found]


def describe(predictor: Predictor) -> dict[str, Any]:
    """Says what the model can do: which routes, and whether in pairs."""
    routes = ["similarity"]
    task = predictor.task
    if task is None:
        routes.insert(0, "fill_mask")
        return {"task": None, "routes": routes}
    if task.kind in ROUTES:
        routes.insert(0, ROUTES[task.kind])
    return {
        "task": task.name,
        "routes": routes,
        "pairs": bool(getattr(task, "pairs", False)),
        "labels": list(task.labels),
    }


class Request:
    """A request's JSON, read within limits."""

    def __init__(self, values: dict[str, Any], limits: Limits):
        self.values, self.limits = values, limits

    def texts(self) -> list[str]:
        """Returns `texts`: a list of strings."""
        return [self._text(text) for text in self._list("texts")]

    def pairs(self) -> list[tuple[str, str]]:
        """Returns `pairs`: a list of two strings each."""
        pairs = []
        for pair in self._list("pairs"):
            if not isinstance(pair, list) or len(pair) != 2:
                raise UserError("`pairs` must hold lists of two texts")
            pairs.append((self._text(pair[0]), self._text(pair[1])))
        return pairs

    def texts_or_pairs(self) -> list[Any]:
        return self.pairs() if "pairs" in self.values else self.texts()

    def top_k(self) -> int:
        value = self.values.get("top_k", 5)
        most = self.limits.max_top_k
        if type(value) is not int or not 1 <= value <= most:
            raise UserError(f"`top_k` must be from 1 to {most}")
        return value

    def _list(self, name: str) -> list[Any]:
        values = self.values.get(name)
        most = self.limits.max_texts
        if not isinstance(values, list) or not 1 <= len(values) <= most:
            raise UserError(f"`{name}` must be a list of 1 to {most} entries")
        return values

    def _text(self, text: Any) -> str:
        most = self.limits.max_characters
        if isinstance(text, str) and text.strip() and len(text) <= most:
            return text
        raise UserError(f"a text must have 1 to {most} characters")
