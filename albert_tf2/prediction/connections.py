"""Connections of the service: time limits that uvicorn has none for.

uvicorn ends a connection that is idle between requests. One that sends half of
its headers, or a byte now and then, it would keep for ever, and at SIGTERM wait
for. Here the time from the beginning of a connection, or from the answer
before, to the end of a request's headers is limited, and so is the number of
connections: the one that has been without a request for longest makes room.
"""

import asyncio
import signal
import socket
from typing import Any, cast

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from albert_tf2.errors import UserError
from albert_tf2.prediction.guard import Limits, error_body

# Seconds from the polite end of a connection to the other.
LAST_WORDS = 1.0


class Room:
    """The open connections of a service.

    Attributes:
        limits: How long and how many.
        idle: Those without a request, longest first.
        turned_away: How many were ended for want of room.
    """

    def __init__(self, limits: Limits):
        self.limits = limits
        self.idle: dict[Connection, None] = {}
        self.open = 0
        self.turned_away = 0

    def gauges(self) -> dict[str, float]:
        """What `/metrics` shows of the connections."""
        return {
            "albert_open_connections": self.open,
            "albert_connections_turned_away": self.turned_away,
        }

    def protocol(self, **kwargs: Any) -> "Connection":
        """Makes the protocol of a connection, for uvicorn."""
        made = Connection(**kwargs)
        made.room = self
        return made


class Connection(H11Protocol):
    """A connection that is ended when no request comes."""

    room: Room
    _timer: asyncio.TimerHandle | None = None
    _writing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.room.open += 1
        self._watch()
        if self.room.open > self.room.limits.connections:
            self.room.turned_away += 1
            oldest = next(iter(self.room.idle))
            if oldest is self:
                oldest.say(503, "too many connections: try again later")
            else:
                oldest.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.room.open -= 1
        self._unwatch()
        if self._writing is not None:
            self._writing.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._writing = self.loop.call_later(
            self.room.limits.write_seconds, self.transport.abort
        )

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None

    def _watch(self) -> None:
        """Lets the time run while there is no request to answer."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._unwatch()
        elif self._timer is None:
            self.room.idle[self] = None
            self._timer = self.loop.call_later(
                self.room.limits.header_seconds, self._expire
            )

    def _unwatch(self) -> None:
        self.room.idle.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        if self.transport.is_closing():
            self.transport.abort()  # its answer was not taken
        else:
            seconds = self.room.limits.header_seconds
            self.say(408, f"no request arrived within {seconds:g} s")

    def say(self, status: int, reason: str) -> None:
        """Answers without a request, and ends the connection."""
        body = error_body(reason)
        self.transport.write(
            b"HTTP/1.1 %d Error\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\nconnection: close\r\n\r\n%b"
            % (status, len(body), body)
        )
        self.transport.close()
        # Whoever does not read is not waited for.
        self.loop.call_later(LAST_WORDS, self.transport.abort)

    def send_400_response(self, msg: str) -> None:
        del msg
        self.say(400, "this is no HTTP request")

    def shutdown(self) -> None:
        try:
            super().shutdown()
        except h11.LocalProtocolError:  # in the middle of something invalid
            self.transport.abort()


def listen(host: str, port: int) -> socket.socket:
    """Returns a socket that listens, before anything is loaded.

    Args:
        host: An address or a name of this machine.
        port: 0 takes any that is free.

    Raises:
        UserError: If the port is in use, or the address not this machine's.
    """
    host = host.removeprefix("[").removesuffix("]")
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        )[0]
        found = socket.create_server(address, family=family, backlog=2048)
        # Handed on to each connection. Without it an answer's second packet
        # waits 40 ms for the first one's receipt.
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return found
    except OSError as error:
        if isinstance(error, socket.gaierror):
            reason = "is no address of this machine: check --host"
        elif isinstance(error, PermissionError):
            reason = "is not open to you: take a --port above 1023"
        elif "in use" in str(error):
            reason = "is in use: end what listens there, or take another --port"
        else:
            reason = f"cannot be listened on ({error.strerror}): check --host"
        raise UserError(f"{shown_address(host, port)} {reason}") from None


def shown_address(host: str, port: int) -> str:
    """Returns host and port as addresses show them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def server(app: Any, room: Room) -> uvicorn.Server:
    """Returns what serves an application, within a room's limits."""
    config = uvicorn.Config(
        app,
        http=cast(Any, room.protocol),  # made as a class would be
        ws="none",
        lifespan="off",
        log_level="error",
        access_log=False,
        server_header=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=int(room.limits.drain_seconds),
    )
    return uvicorn.Server(config)


def run(app: Any, listener: socket.socket, room: Room) -> None:
    """Serves until SIGTERM or SIGINT, then answers what it has begun."""
    # uvicorn raises the signal again when all is done: by then it is nothing.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    server(app, room).run(sockets=[listener])
