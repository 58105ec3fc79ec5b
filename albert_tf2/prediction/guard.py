"""What every request passes before it is read, and what every answer carries.

Under which names the service may be called: a page of somebody else's, shown
in a browser of this machine, can send requests here, and by letting its own
name point here (DNS rebinding) it could read the answers too. So a request
must name an address, this machine, or what `--allow_host` names; and a page
that sends one must be the service's own.
"""

import asyncio
import dataclasses
import ipaddress
import json
import re
import socket
import time
from collections.abc import Collection, Sequence
from typing import Any

from albert_tf2.prediction.metrics import Metrics

# The page uses nothing from elsewhere, and nobody may frame it.
HEADERS = [
    (
        b"content-security-policy",
        b"default-src 'none'; connect-src 'self'; script-src 'self'; "
        b"style-src 'self'; frame-ancestors 'none'; base-uri 'none'; "
        b"form-action 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
CLOSE = (b"connection", b"close")
OTHER = "other"
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """What one request and all connections may take.

    Attributes:
        body_bytes: Of a request.
        header_seconds: From the beginning of a connection, or the answer
            before, to the end of a request's headers.
        body_seconds: From there to the end of its body.
        work_seconds: From there to its answer.
        write_seconds: For a client to take an answer.
        drain_seconds: From SIGTERM to the end, whatever clients do.
        connections: Open at a time; the one that has been idle for longest
            makes room.
    """

    body_bytes: int = 262_144
    header_seconds: float = 10.0
    body_seconds: float = 10.0
    work_seconds: float = 30.0
    write_seconds: float = 10.0
    drain_seconds: float = 7.0
    connections: int = 512


def to_visit(host: str) -> str:
    """Returns the address to call where a service listens on `host`."""
    address = _address(host)
    if address is None or not address.is_unspecified:
        return host
    return "127.0.0.1" if address.version == 4 else "::1"


def is_loopback(host: str) -> bool:
    """Whether a host to listen on is reached from this machine alone."""
    address = _address(host)
    return host == "localhost" if address is None else address.is_loopback


def _address(host: str) -> Any:
    """Returns an IP address; None for a name."""
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


class Names:
    """The names under which a service may be called."""

    def __init__(self, host: str = "127.0.0.1", more: Sequence[str] = ()):
        """Collects the names.

        Args:
            host: What the service listens on.
            more: Names and addresses that a proxy or a network gives it.
        """
        self._only_loopback = is_loopback(host)
        self._names = {"localhost", *(name.lower() for name in more)}
        if not self._only_loopback:
            self._names.add(socket.gethostname().lower())
            if _address(host) is None:
                self._names.add(host.lower())

    def knows(self, host: str) -> bool:
        """Whether a Host header names this service."""
        found = _HOST.fullmatch(host)
        if found is None or int(found[2] or 0) > 65_535:
            return False
        name = found[1].lower()
        if name in self._names:
            return True
        address = _address(name)
        # `0.0.0.0` and `::` are addresses to listen on, which some browsers
        # take for this machine: a trick of foreign pages.
        if address is None or address.is_unspecified:
            return False
        return address.is_loopback or not self._only_loopback


class Guard:
    """ASGI middleware: names, sizes, times, headers, counts."""

    def __init__(
        self,
        app: Any,
        *,
        names: Names,
        limits: Limits,
        metrics: Metrics,
        routes: Collection[str],
    ):
        """Keeps the parts.

        Args:
            app: The application.
            names: Under which it may be called.
            limits: What a request may take.
            metrics: Counts.
            routes: Paths that are counted by name.
        """
        self.app = app
        self.names, self.limits, self.metrics = names, limits, metrics
        self.routes = frozenset(routes)

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.monotonic()
        status = 499  # the client went before there was an answer

        async def answer(message):
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *HEADERS]
            await send(message)

        try:
            await self._pass_on(scope, receive, answer)
        except asyncio.CancelledError:
            # The service ends before this was answered.
            if status != 499:
                raise
            await refuse(answer, 503, "the service is stopping")
        finally:
            path = scope["path"]
            route = path if path in self.routes else OTHER
            self.metrics.answered(route, status, time.monotonic() - began)

    async def _pass_on(self, scope, receive, answer) -> None:
        headers = scope["headers"]
        refusal = self._refusal(headers)
        if refusal:
            await refuse(answer, *refusal)
            return
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                body = await self._body(receive)
        except TimeoutError:
            await refuse(
                answer,
                408,
                "the request did not arrive within "
                f"{self.limits.body_seconds:g} s",
            )
            return
        if body is None:  # gone
            return
        if len(body) > self.limits.body_bytes:
            await refuse(answer, *self._too_large())
            return
        given = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay():
            return given.pop() if given else await receive()

        await self.app(scope, replay, answer)

    def _refusal(self, headers) -> tuple[int, str] | None:
        """Returns status and reason if the headers tell enough to refuse."""
        found = {name: value.decode("latin-1") for name, value in headers}
        host = found.get(b"host", "")
        if not self.names.knows(host):
            return 421, (
                "this service is not called that: use its address, or start "
                "it with --allow_host"
            )
        origin = found.get(b"origin")
        if origin is not None and origin not in (
            f"http://{host}",
            f"https://{host}",  # a proxy's
        ):
            return 403, "pages of other sites may not use this service"
        length = found.get(b"content-length", "0")
        if not length.isascii() or not length.isdigit():
            return 400, "content-length must be a number"
        if len(length) > 18 or int(length) > self.limits.body_bytes:
            return self._too_large()
        return None

    def _too_large(self) -> tuple[int, str]:
        most = self.limits.body_bytes
        return 413, f"the request is too large: at most {most} bytes"

    async def _body(self, receive) -> bytes | None:
        """Reads the body whole, or one piece more than is allowed."""
        parts = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            part = message.get("body", b"")
            parts.append(part)
            size += len(part)
            if size > self.limits.body_bytes or not message.get("more_body"):
                return b"".join(parts)


async def refuse(send, status: int, reason: str) -> None:
    """Answers with an error, and ends the connection."""
    body = error_body(reason)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        CLOSE,
    ]
    start = {"type": "http.response.start", "status": status}
    await send({**start, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def error_body(reason: str) -> bytes:
    """Returns the one form of errors: {"detail": "a sentence"}."""
    return json.dumps({"detail": reason}, ensure_ascii=False).encode(
        "utf-8", "backslashreplace"
    )
